"""One run from its configuration: train, resume or evaluate. train.py calls `run`."""

import contextlib
import dataclasses
import os
import shlex

import keras

from keras_preact.data import Dataset, DatasetInfo, datasets
from keras_preact.layers import BatchNormalization
from keras_preact.models import ResNetV2
from keras_preact.support import console
from keras_preact.support.commands import program
from keras_preact.support.console import say
from keras_preact.support.paths import usable
from keras_preact.support.signals import Interrupted
from keras_preact.training import memory
from keras_preact.training.checkpoints import checkpoint
from keras_preact.training.checkpoints.folder import step_of
from keras_preact.training.checkpoints.run_state import RunState
from keras_preact.training.config import TrainConfig
from keras_preact.training.distribution import strategies
from keras_preact.training.distribution.agreement import Agreement
from keras_preact.training.distribution.cluster import from_environment
from keras_preact.training.distribution.distributed_input import (
    feed_evaluation,
    naming_unreadable,
)
from keras_preact.training.interruption import Interruption
from keras_preact.training.reporting import metrics_file, propagation_file
from keras_preact.training.reporting.propagation_recorder import PropagationRecorder
from keras_preact.training.reporting.writer import Writer
from keras_preact.training.run_folder import RunFolder, check_same_data
from keras_preact.training.steps import optimizer
from keras_preact.training.steps.evaluation import Evaluation, evaluate, make_eval_step
from keras_preact.training.steps.train_state import make_state
from keras_preact.training.trainer import Trainer


def run(config: TrainConfig) -> Evaluation:
    """Trains, resumes or evaluates, as config.mode and config.resume say.

    Returns:
        The last evaluation.

    Raises:
        ValueError: if the configuration, the data or the run folder is not as needed, or
            another process uses the run folder.
        DivergenceError: if the loss becomes NaN or infinite.
        Interrupted: after SIGINT or SIGTERM, or when the time allowed is over, once the
            run has been saved.
        SaveError: if the run cannot be saved twice in a row.
        WorkerLostError: if another worker of the run has ended or cannot be reached.
    """
    cluster = from_environment(os.environ)
    with console.unbreakable(), Agreement(config, cluster) as agreement:
        act = _evaluate if config.mode == "evaluate" else _train
        return act(config, cluster, agreement)


def _train(config, cluster, agreement):
    config.require("dataset", "depth")
    minutes = config.max_runtime_minutes
    interruption = Interruption(minutes and 60 * minutes, tell=say)
    writes = cluster is None or cluster.is_chief
    folder = RunFolder(config.folder)
    with folder.locked(config.resume) if writes else contextlib.nullcontext():
        folder.check_free(config)
        with strategies.prepared(config, cluster, agreement.on_plan) as (plan, strategy):
            keras.utils.set_random_seed(config.seed)
            data = load_data(config)
            memory.check(config, data.info, plan)
            agreement.on_data(data)
            trainer = _make_trainer(config, data, folder, plan, strategy, writes, interruption)
            run_state = _start(config, data, folder, trainer)
            _announce(config, data, folder, trainer, plan, run_state)
            result = _fit(trainer, run_state, folder)
            trainer.writer.line(
                f"Finished: evaluation {result}\n"
                f"  run:    {folder}\n"
                f"  curves: {folder.curves}\n"
                f"  export: {program('export')} --run_dir={shlex.quote(str(folder))}"
            )
            return result


def _fit(trainer, run_state, folder):
    try:
        return trainer.fit(run_state)
    except Interrupted as interrupted:
        if folder.aside.exists():
            interrupted.add_note(folder.kept_aside())
        raise


def _make_trainer(config, data, folder, plan, strategy, writes, interruption):
    schedule = optimizer.make_schedule(config, data.info.train_count)
    with strategy.scope():
        model = build_model(config, data.info, sync_bn=config.sync_bn)
        sgd = optimizer.make_optimizer(config, schedule, model)
        state = make_state(config, model, sgd)
    measures = config.log_propagation_steps and writes
    probe = PropagationRecorder(model, data, config) if measures else None
    checkpoints = checkpoint.Checkpoints(
        folder.checkpoints, state, config.keep_checkpoints, say, folder.run_id, folder.check_ours
    )
    title = f"{model.name}, {config.unit}, on {data.info.name}"
    writer = Writer(folder, checkpoints, config, data, title, writes)
    return Trainer(
        config, data, state, schedule, plan, strategy, checkpoints, writer, interruption, probe
    )


def _start(config, data, folder, trainer):
    """Where the run begins or goes on, once the folder is ready for it."""
    if config.resume and folder.holds_a_run():
        check_same_data(data.info, folder.read()[1], trained_on=True)
        metrics_file.read(folder.metrics)
        propagation_file.read(folder.propagation)
        folder.check_nothing_lost()
        metrics_file.check_writable(folder.tensorboard)
        return trainer.restore()
    if folder.holds_a_run() and trainer.writer.writes:
        folder.set_aside()
    return RunState(seed=config.seed)


def _announce(config, data, folder, trainer, plan, run_state):
    if trainer.writer.writes:
        folder.begin(config, data.info, plan, run_state.step)
    model = trainer.model
    trainer.writer.line(
        f"{model.name} with {config.unit} units, {model.count_params():,} parameters, on "
        f"{data.info.train_count:,} images of {data.info.name} for {trainer.train_steps:,} "
        f"steps of {config.global_batch_size}. Run folder: {folder}\n{plan}"
        + (f"\nContinuing after step {run_state.step:,}" if run_state.step else "")
        + (f"\n{folder.kept_aside()}" if folder.aside.exists() else "")
    )


def _evaluate(config, cluster, agreement):
    config.require("run_dir")
    folder = RunFolder(config.run_dir)
    folder.check_evaluable(config)
    _, info = folder.read()
    checkpoint.find(folder.checkpoints, config.checkpoint, tell=lambda line: None)
    with strategies.prepared(config, cluster, agreement.on_plan) as (plan, strategy):
        data = load_data(config)
        memory.check(config, info, plan)
        agreement.on_data(data)
        check_same_data(data.info, info)
        with strategy.scope():
            # Anew: a run that goes on may have deleted it meanwhile.
            path = checkpoint.find(folder.checkpoints, config.checkpoint, run=folder.recorded_id())
            strategies.check_same_start(strategy, step_of(path))
            model = restore_model(folder, path)
        step = make_eval_step(model, info, strategy)
        batches, steps = feed_evaluation(strategy, data, config.global_batch_size)
        with naming_unreadable(data, "eval", lambda: range(data.info.eval_count)):
            result = evaluate(step, batches, steps)
        if cluster is None or cluster.is_chief:
            say(f"{folder} at step {step_of(path):,}: {result}")
        return result


def load_data(config: TrainConfig) -> Dataset:
    """The data of a run.

    Raises:
        ValueError: as `datasets.load` does, or if the augmentation does not fit.
    """
    if config.data_dir is not None:
        # Nothing below is looked for by a pattern.
        usable(config.data_dir, "data_dir", wildcards=True)
    memory.check_image_size(config)
    data = datasets.load(
        config.dataset,
        data_dir=config.data_dir,
        image_size=config.image_size,
        skip_bad_images=config.skip_bad_images,
    )
    data.check_augmentation(config.augmentation)
    return data


def restore_data(folder: RunFolder, data_dir: str | None = None) -> Dataset:
    """The data of a run, with the mean and deviation by which it was trained.

    Args:
        folder: of the run.
        data_dir: where the images lie; default: where they lay in training.

    Raises:
        ValueError: as `load_data` does, or if the data are not those of the run.
    """
    config, info = folder.read()
    data = load_data(config.updated(data_dir=data_dir) if data_dir else config)
    check_same_data(data.info, info)
    # Another version's decoder may give others.
    recorded = dataclasses.replace(data.info, mean=info.mean, std=info.std)
    return dataclasses.replace(data, info=recorded)


def build_model(config: TrainConfig, info: DatasetInfo, sync_bn: bool = False) -> keras.Model:
    """The network of a run, with new weights.

    Args:
        config: of the run.
        info: of its data.
        sync_bn: whether BN takes the statistics of the global batch.
    """
    model = ResNetV2(
        config.depth,
        input_shape=info.image_shape,
        classes=info.classes,
        **config.architecture(),
        stochastic_depth_rate=config.stochastic_depth_rate,
    )
    for layer in model._flatten_layers() if sync_bn else ():
        if isinstance(layer, BatchNormalization):
            layer.synchronized = True
    return model


def restore_model(folder: RunFolder, path: str) -> keras.Model:
    """The network of a run with the weights of one of its checkpoints: averaged ones, if it has."""
    config, info = folder.read()
    model = build_model(config, info)
    checkpoint.load_model(path, model, averages=config.ema_decay is not None)
    return model
