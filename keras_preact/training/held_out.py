"""Evaluates the test split once, when training is over."""

import dataclasses
import json
from typing import Any

import numpy as np

from keras_preact.data import Dataset
from keras_preact.support import records
from keras_preact.support.files import write_whole
from keras_preact.training.checkpoints import checkpoint as checkpoints
from keras_preact.training.checkpoints.folder import step_of
from keras_preact.training.distribution.distributed_input import naming_unreadable
from keras_preact.training.distribution.strategies import check_same_start, wait_for_all
from keras_preact.training.networks import restore_model
from keras_preact.training.run_in_progress import Run
from keras_preact.training.steps.evaluation import Evaluator
from keras_preact.training.steps.scores import Evaluation, MultiLabelEvaluation

_WHAT = "the result on the test split"


@dataclasses.dataclass(frozen=True)
class HeldOutResult:
    """The contents of test.json.

    Args:
        step: of the weights that were tested.
        end_step: at which the run ended.
        checkpoint: "newest" or "best".
        images: number of images of the test split.
        line: the figures in words.
        scores: figures by name, fractions from 0 to 1 and the loss.
    """

    step: int
    end_step: int
    checkpoint: str
    images: int
    line: str
    scores: dict

    def __str__(self) -> str:
        return f"Test split, {self.checkpoint} weights, of step {self.step:,}: {self.line}"


def read(run: Run) -> HeldOutResult | None:
    """Returns the result that a run has written at its end; None if there is none yet.

    A run that was lengthened since has none.

    Raises:
        ValueError: if test.json is damaged.
    """
    if not run.folder.test.exists():
        return None
    result = records.read_json(run.folder.test, HeldOutResult, _WHAT)
    return result if result.end_step == run.done else None


def is_due(run: Run) -> bool:
    """Whether the test split of a run that is over has not been evaluated yet."""
    return run.data.test_source is not None and read(run) is None


def report(run: Run) -> None:
    """Evaluates the test split, prints the result and writes it to test.json.

    The weights are those with which the run ends; with early_stopping_epochs those of the best
    checkpoint, as the last ones are known to be worse.

    Raises:
        Interrupted: if asked to stop meanwhile; a resumed run evaluates the split.
        ValueError: if the best checkpoint cannot be read.
    """
    test = run.data.for_test()
    if run.config.early_stopping_epochs is None:
        which, step, evaluation = "newest", run.done, run.evaluate_as_it_is(test)
    else:
        which, (step, evaluation) = "best", _of_best(run, test)
    if evaluation is None:
        raise run.interruption.interrupted(f"after step {run.done:,}, before the test split")
    result = HeldOutResult(
        step, run.done, which, evaluation.count, str(evaluation), evaluation.scores
    )
    run.writer.line(str(result))
    if run.devices.writes:
        run.folder.check_ours()
        write_whole(run.folder.test, _contents(result, evaluation, test).encode())
    run.writer.test(run.done, result.scores)


def _of_best(run: Run, test: Dataset):
    """Returns the step of the best checkpoint, and its evaluation."""
    strategy = run.devices.strategy
    # The chief has written it.
    wait_for_all(strategy)
    path = checkpoints.find(run.folder.checkpoints, "best", run=run.folder.recorded_id())
    check_same_start(strategy, step_of(path))
    with strategy.scope():
        model = restore_model(run.folder, path)
    evaluator = Evaluator(model, test, run.devices.plan, strategy)
    with naming_unreadable(test, "eval", lambda: range(test.info.eval_count)):
        result = evaluator(run.config.global_batch_size, lambda: run.interruption.requested)
    return step_of(path), result


def _contents(result, evaluation: Evaluation | MultiLabelEvaluation, test: Dataset) -> str:
    names = test.info.class_names
    values: dict[str, Any] = {
        **dataclasses.asdict(result),
        "class_f1": dict(zip(names, map(_number, evaluation.class_f1), strict=True)),
    }
    return f"{json.dumps(values, indent=2)}\n"


def _number(value):
    """A number for JSON, which knows no NaN."""
    return None if np.isnan(value) else float(value)
