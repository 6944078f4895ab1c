"""All numbers about the answers of a model, and those of two models side by side."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from keras_preact.evaluation import bootstrap, calibration, comparison, metrics, multi_label
from keras_preact.evaluation.answers import Answers
from keras_preact.evaluation.bootstrap import Interval
from keras_preact.evaluation.calibration import Reliability, Temperature
from keras_preact.evaluation.comparison import Difference, McNemar
from keras_preact.evaluation.config import EvaluateConfig

# Pairs of classes that the report lists.
_MOST_PAIRS = 20


@dataclasses.dataclass(frozen=True)
class Measures:
    """The numbers about a model.

    Args:
        numbers: of all images, by name.
        intervals: of some of them.
        by_class: columns of figures, float64 or int64 (classes,).
        reliability: as the model is.
        temperature: fitted; None for a single image.
        definitions: of the names.
        selective: of a model of one class an image; see `metrics.selective_accuracy`.
        confused: likewise: (true class, predicted class, images), the commonest first.
    """

    numbers: Mapping[str, float]
    intervals: Mapping[str, Interval]
    by_class: Mapping[str, np.ndarray]
    reliability: Reliability
    temperature: Temperature | None
    definitions: Mapping[str, str]
    selective: Mapping[str, np.ndarray] | None = None
    confused: Sequence[tuple[int, int, int]] = ()


def measure(answers: Answers, config: EvaluateConfig, temperature: float = 1.0) -> Measures:
    """Measures the answers of a model.

    Args:
        answers: of one class an image, or of any number.
        config: gives bins, resamples and seed.
        temperature: that the model has already.
    """
    if isinstance(answers, multi_label.Answers):
        return _several(answers, config, temperature)
    numbers = metrics.summary(answers)
    found = calibration.reliability(answers.confidence, answers.correct, config.bins)
    adaptive = calibration.reliability(answers.confidence, answers.correct, config.bins, True)
    figures = metrics.per_class(answers.confusion)
    return Measures(
        numbers=numbers | _calibration(found, adaptive),
        intervals=_intervals(answers, config),
        by_class={
            "images": figures.support,
            "predicted": figures.predicted,
            "precision": figures.precision,
            "recall": figures.recall,
            "f1": figures.f1,
        },
        reliability=found,
        temperature=calibration.temperature(answers, config.bins, config.seed, temperature),
        definitions=metrics.DEFINITIONS | calibration.DEFINITIONS | bootstrap.DEFINITIONS,
        selective=metrics.selective_accuracy(answers),
        confused=metrics.confused_pairs(answers.confusion, _MOST_PAIRS),
    )


def _intervals(answers, config):
    if not config.resamples:
        return {}
    found = bootstrap.confusion_intervals(answers.confusion, config.resamples, config.seed)
    values = {"loss": answers.losses}
    if answers.classes > metrics.TOP_K:
        values["top5_accuracy"] = answers.ranks < metrics.TOP_K
    for name, column in values.items():
        drawn = bootstrap.resampled_mean(column, config.resamples, config.seed)
        found[name] = bootstrap.interval(drawn)
    return found


def _several(answers, config, temperature):
    figures = multi_label.per_class(answers)
    probabilities, is_true = answers.probabilities.ravel(), answers.is_true.ravel()
    found = calibration.reliability(probabilities, is_true, config.bins)
    adaptive = calibration.reliability(probabilities, is_true, config.bins, True)
    numbers = multi_label.summary(answers, figures, config.seed)
    intervals = {}
    if config.resamples:
        intervals = multi_label.intervals(answers, config.resamples, config.seed)
    fields = {field.name: getattr(figures, field.name) for field in dataclasses.fields(figures)}
    return Measures(
        numbers=numbers | _calibration(found, adaptive),
        intervals=intervals,
        by_class={"images": fields.pop("support"), "predicted": fields.pop("predicted"), **fields},
        reliability=found,
        temperature=calibration.multi_label_temperature(
            answers.probabilities, answers.labels, config.bins, config.seed, temperature
        ),
        definitions=metrics.DEFINITIONS
        | calibration.DEFINITIONS
        | bootstrap.DEFINITIONS
        | multi_label.DEFINITIONS,
    )


def _calibration(found, adaptive):
    return {
        "expected_calibration_error": found.expected_error,
        "maximum_calibration_error": found.maximum_error,
        "adaptive_calibration_error": adaptive.expected_error,
    }


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Two models on the same images.

    Args:
        first: measures of the first model on them.
        second: of the second.
        differences: the second's numbers minus the first's.
        mcnemar: the test of equal errors; of several labels, of exact matches.
        only_first: places of the images that the first model alone gets right, int64 (any,).
        only_second: of those that the second alone gets right.
    """

    first: Measures
    second: Measures
    differences: Mapping[str, Difference]
    mcnemar: McNemar
    only_first: np.ndarray
    only_second: np.ndarray


def compare(
    first: Answers,
    second: Answers,
    config: EvaluateConfig,
    temperatures: tuple[float, float] = (1.0, 1.0),
) -> Comparison:
    """Compares the answers of two models for the same images in the same order.

    Raises:
        ValueError: if only one of them gives each class a probability of its own.
    """
    if type(first) is not type(second):
        raise ValueError(
            "Two models that are compared must both give each class a probability of its own, or "
            "both give probabilities that add up to 1. Received: one of each"
        )
    several = isinstance(first, multi_label.Answers)
    # Intervals of differences need draws, also where none are wanted for the numbers.
    resamples = config.resamples or 1
    differ = multi_label_differences if several else comparison.differences
    return Comparison(
        measure(first, config, temperatures[0]),
        measure(second, config, temperatures[1]),
        differ(first, second, resamples, config.seed),
        comparison.mcnemar(first.correct, second.correct),
        np.flatnonzero(first.correct & ~second.correct),
        np.flatnonzero(second.correct & ~first.correct),
    )


def multi_label_differences(
    first: multi_label.Answers, second: multi_label.Answers, resamples: int, seed: int
) -> dict[str, Difference]:
    """Returns the differences of mean average precision, exact match and loss."""
    statistics = {
        "mean_average_precision": lambda draws: (
            multi_label.mean_average_precision(second, draws)
            - multi_label.mean_average_precision(first, draws)
        ),
        "exact_match": lambda draws: draws @ (second.correct * 1 - first.correct) / len(first),
        "loss": lambda draws: draws @ (second.losses - first.losses) / len(first),
    }
    ones = np.ones(len(first), int)
    found = bootstrap.resampled(ones, statistics, resamples, seed)
    return {
        name: Difference(float(statistic(ones[None])[0]), bootstrap.interval(found[name]))
        for name, statistic in statistics.items()
    }
