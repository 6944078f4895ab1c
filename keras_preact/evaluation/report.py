"""The report of an evaluation: its numbers as JSON, tables as CSV, and lines for the terminal."""

import csv
import dataclasses
import io
import json
import math
import os
import shlex
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from keras_preact.data.limits import covered_sides
from keras_preact.evaluation import multi_label
from keras_preact.evaluation.answers import Answered, Answers
from keras_preact.evaluation.bootstrap import PERCENT
from keras_preact.evaluation.comparison import Difference
from keras_preact.evaluation.config import EvaluateConfig
from keras_preact.evaluation.images import Images
from keras_preact.evaluation.measuring import Comparison, Measures
from keras_preact.evaluation.models import Model
from keras_preact.support.commands import program
from keras_preact.support.text import aligned, printable
from keras_preact.version import __version__

# The numbers that the terminal and the top of the page show, in this order.
HEADLINES = (
    *("accuracy", "top5_accuracy", "accuracy_among_data_classes", "mean_average_precision"),
    *("exact_match", "micro_f1", "macro_f1", "fitted_macro_f1", "macro_roc_auc", "loss"),
    "expected_calibration_error",
)
_PERCENT = ("accuracy", "error", "precision", "recall", "f1", "match", "calibration_error", "auc")
_MOST_LINES = 10


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """A model, its answers and the numbers about them.

    Args:
        config: of the evaluation.
        model: that was evaluated.
        images: labelled; with their description.
        split: name of the part of the data set.
        answered: answers and the indices of the images they are for.
        measures: the numbers.
        other: the model that it was compared with.
        other_answered: its answers for the same images.
        comparison: of both.
    """

    config: EvaluateConfig
    model: Model
    images: Images
    split: str
    answered: Answered
    measures: Measures
    other: Model | None = None
    other_answered: Answered | None = None
    comparison: Comparison | None = None

    @property
    def numbers(self) -> Mapping[str, float]:
        """The numbers of all images, by name."""
        return self.measures.numbers

    @property
    def answers(self) -> Answers:
        """The probabilities and labels of the images."""
        return self.answered.answers

    @property
    def names(self) -> list[str]:
        """The path of each image that has an answer, or its number."""
        return [self.images.name(int(index)) for index in self.answered.indices]

    @property
    def problems(self) -> dict[str, str]:
        """Why files could not be read, by their path."""
        unread = {self.images.name(n): why for n, why in sorted(self.answered.problems.items())}
        if self.other_answered:
            later = sorted(self.other_answered.problems.items())
            unread |= {self.images.name(n): why for n, why in later}
        return dict(self.images.problems) | unread


def export_command(evaluation: Evaluation) -> str | None:
    """Returns the command that writes the fitted temperature into an export.

    None of a model that is an export itself, of one evaluated at another size than it is exported
    for, and where no temperature has been found.
    """
    model, config, fitted = evaluation.model, evaluation.config, evaluation.measures.temperature
    is_own_size = config.image_size is None and config.resize is None and config.crops == 1
    is_there = model.run is not None or model.name.endswith(".keras")
    if not (is_there and is_own_size) or fitted is None or fitted.at_end_of_range:
        return None
    where = f"--{'run_dir' if model.run else 'model'}={shlex.quote(model.name)}"
    if model.run and config.checkpoint != EvaluateConfig.checkpoint:
        where += f" --checkpoint={config.checkpoint}"
    return f"{program('export')} {where} --temperature={fitted.value:.4g}"


def to_json(evaluation: Evaluation) -> bytes:
    """Returns all numbers with the definitions of their names; what is not a number is null."""
    measures, config = evaluation.measures, evaluation.config
    parts = {
        "keras_preact": __version__,
        "model": _model(evaluation.model),
        "data": {
            "images": len(evaluation.answers),
            "description": evaluation.images.description,
            "split": evaluation.split,
            "classes": list(evaluation.images.class_names),
            "unreadable": evaluation.problems,
        },
        "settings": {"crops": config.crops, "seed": config.seed, "resamples": config.resamples},
        **_measures(measures, evaluation.answers),
        "definitions": measures.definitions,
    }
    if comparison := evaluation.comparison:
        parts["comparison"] = {
            "model": _model(evaluation.other),
            "images": len(evaluation.other_answered.answers),
            "first": _measures(comparison.first, evaluation.answers, brief=True),
            "second": _measures(comparison.second, evaluation.other_answered.answers, brief=True),
            "differences": {
                name: {"value": each.value, "interval": each.interval}
                for name, each in comparison.differences.items()
            },
            "mcnemar": dataclasses.asdict(comparison.mcnemar),
        }
    return f"{json.dumps(_plain(parts), indent=2)}\n".encode()


def _model(model):
    preprocessing = model.preprocessing
    return {
        "path": model.name,
        "sha256": model.classifier.digest(),
        "image_shape": preprocessing.image_shape,
        "resized_to_cover": covered_sides(preprocessing.image_shape, preprocessing.resize_ratio),
        "interpolation": preprocessing.interpolation,
        "multi_label": preprocessing.multi_label,
        "temperature": preprocessing.temperature,
        "classes": len(model.class_names),
    }


def _measures(measures, answers, brief=False):
    found = {"numbers": measures.numbers, "intervals": measures.intervals}
    if fitted := measures.temperature:
        found["temperature"] = {
            "value": fitted.value,
            "at_end_of_range": fitted.at_end_of_range,
            "loss": fitted.loss,
            "expected_calibration_error": fitted.reliability.expected_error,
            "adaptive_calibration_error": fitted.adaptive_error,
        }
    if brief:
        return found
    found["reliability"] = dataclasses.asdict(measures.reliability)
    if measures.selective:
        found["selective"] = measures.selective
    if measures.confused:
        names = answers.class_names
        found["most_confused"] = [
            {"true": names[true], "predicted": names[predicted], "images": images}
            for true, predicted, images in measures.confused
        ]
    return found


def _plain(value: Any) -> Any:
    """The value as JSON knows it."""
    if isinstance(value, Mapping):
        return {str(name): _plain(each) for name, each in value.items()}
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def per_class_csv(measures: Measures, class_names: Sequence[str]) -> bytes:
    """Returns a row for each class; figures that cannot be divided are empty."""
    columns = measures.by_class
    rows = zip(class_names, *columns.values(), strict=True)
    return _csv(["class", *columns], ([name, *map(_cell, cells)] for name, *cells in rows))


def confusion_csv(matrix: np.ndarray, class_names: Sequence[str]) -> bytes:
    """Returns a row for each true class, with the images predicted as each class."""
    rows = zip(class_names, matrix.tolist(), strict=True)
    return _csv(["true \\ predicted", *class_names], ([name, *row] for name, row in rows))


def predictions_csv(evaluation: Evaluation) -> bytes:
    """Returns a row for each image, in order."""
    answers, names = evaluation.answers, evaluation.names
    classes = answers.class_names
    if isinstance(answers, multi_label.Answers):
        rows = zip(names, answers.is_true, answers.predicted, answers.correct, strict=True)
        return _csv(
            ["path", "labels", "predicted", "exact"],
            (
                [name, _several(true, classes), _several(predicted, classes), int(correct)]
                for name, true, predicted, correct in rows
            ),
        )
    own = answers.probabilities[np.arange(len(answers)), answers.labels]
    columns = (answers.labels, answers.predicted, answers.confidence, own, answers.ranks)
    head = ["path", "label", "predicted", "probability", "label_probability", "label_rank"]
    return _csv(
        head,
        (
            [name, classes[label], classes[predicted], _cell(p), _cell(q), rank + 1]
            for name, label, predicted, p, q, rank in zip(names, *columns, strict=True)
        ),
    )


def comparison_csv(evaluation: Evaluation) -> bytes:
    """Returns a row for each image that one of two models alone gets right."""
    found = evaluation.comparison
    pairs = [(place, "first") for place in found.only_first.tolist()]
    pairs += [(place, "second") for place in found.only_second.tolist()]
    answers = (evaluation.answers, evaluation.other_answered.answers)
    return _csv(
        ["path", "label", "right", "first", "second"],
        (
            [
                evaluation.images.name(int(evaluation.other_answered.indices[place])),
                _true(answers[0], place),
                which,
                *(_said(each, place) for each in answers),
            ]
            for place, which in sorted(pairs)
        ),
    )


def probabilities_npz(evaluation: Evaluation) -> bytes:
    """Returns probabilities, labels, paths and class names as a NumPy archive."""
    file, answers = io.BytesIO(), evaluation.answers
    np.savez_compressed(
        file,
        probabilities=answers.probabilities,
        labels=answers.labels,
        paths=np.array([_utf8(name) for name in evaluation.names]),
        class_names=np.array(answers.class_names),
    )
    return file.getvalue()


def _true(answers, place):
    if isinstance(answers, multi_label.Answers):
        return _several(answers.is_true[place], answers.class_names)
    return answers.class_names[answers.labels[place]]


def _said(answers, place):
    if isinstance(answers, multi_label.Answers):
        return _several(answers.predicted[place], answers.class_names)
    return answers.class_names[answers.predicted[place]]


def _several(mask, names):
    return "|".join(names[place] for place in np.flatnonzero(mask))


def _csv(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(head)
    writer.writerows(rows)
    return text.getvalue().encode("utf-8", "backslashreplace")


def _utf8(name):
    return name.encode("utf-8", "backslashreplace").decode()


def _cell(value):
    if isinstance(value, np.integer | int):
        return int(value)
    return "" if math.isnan(value) else f"{float(value):.8g}"


def shown(name: str, value: float) -> str:
    """Returns a number as people read it: a percentage where it is a fraction."""
    if value is None or not math.isfinite(value):
        return "-"
    return f"{100 * value:.2f} %" if name.endswith(_PERCENT) else f"{value:.4f}"


def shown_interval(name: str, interval: tuple[float, float] | None) -> str:
    """Returns an interval as people read it; empty without one."""
    return "" if interval is None else f"{shown(name, interval[0])} to {shown(name, interval[1])}"


def shown_difference(name: str, found: Difference) -> tuple[str, str]:
    """Returns a difference and its interval as people read them: in percentage points."""
    unit, digits, suffix = (100, 2, " points") if name.endswith(_PERCENT) else (1, 4, "")
    low, high = (f"{unit * end:+.{digits}f}" for end in found.interval)
    return f"{unit * found.value:+.{digits}f}{suffix}", f"{low} to {high}"


def summary(evaluation: Evaluation) -> str:
    """Returns the lines that the terminal shows."""
    measures, model = evaluation.measures, evaluation.model
    preprocessing = model.preprocessing
    height, width, _ = preprocessing.image_shape
    known, used = len(model.class_names), len(evaluation.images.class_names)
    crops = f", {evaluation.config.crops} crops" if evaluation.config.crops > 1 else ""
    lines = [
        f"{printable(model.name)} on {len(evaluation.answers):,} images "
        f"({printable(evaluation.images.description)}), {height} x {width} pixels{crops}"
    ]
    if used < known:
        lines.append(f"The data have {used:,} of the model's {known:,} classes.")
    rows = [
        (
            name,
            shown(name, measures.numbers[name]),
            shown_interval(name, measures.intervals.get(name)),
        )
        for name in HEADLINES
        if name in measures.numbers
    ]
    lines.append(aligned(("", "", f"{PERCENT} % interval"), rows))
    if measures.confused:
        names = evaluation.answers.class_names
        pairs = [
            f"{printable(names[true])} as {printable(names[predicted])} ({images:,})"
            for true, predicted, images in measures.confused[:3]
        ]
        lines.append(f"Most confused: {', '.join(pairs)}")
    lines += _temperature_lines(evaluation)
    if evaluation.comparison:
        lines.append(_comparison_lines(evaluation))
    return "\n".join(lines)


def _temperature_lines(evaluation):
    fitted = evaluation.measures.temperature
    if fitted is None:
        return []
    before = evaluation.measures.reliability.expected_error
    lines = [
        f"Temperature {fitted.value:.3g}: calibration error {before:.2%} becomes "
        f"{fitted.reliability.expected_error:.2%} on images it was not fitted to"
    ]
    if fitted.at_end_of_range:
        lines.append("  (the search ended at the end of its range: not to be used)")
    elif command := export_command(evaluation):
        lines.append(f"  {command}")
    return lines


def _comparison_lines(evaluation):
    found = evaluation.comparison
    rows = [
        (
            name,
            shown(name, found.first.numbers[name]),
            shown(name, found.second.numbers[name]),
            *shown_difference(name, each),
        )
        for name, each in found.differences.items()
    ]
    head = ("", "first", "second", "difference", f"{PERCENT} % interval")
    test = found.mcnemar
    return (
        f"Beside {printable(evaluation.other.name)}, the second:\n{aligned(head, rows)}\n"
        f"McNemar's test: p = {test.p_value:.3g} ({test.test}; the first alone is right "
        f"{test.only_first:,} times, the second {test.only_second:,} times)"
    )


def unreadable(problems: Mapping[str, str]) -> str:
    """Returns the first files that could not be read, and why."""
    lines = [f"  {printable(os.fspath(name))}: {why}" for name, why in problems.items()]
    more = [f"  and {len(lines) - _MOST_LINES:,} more: report.json lists all"]
    return "\n".join(lines[:_MOST_LINES] + more * (len(lines) > _MOST_LINES))
