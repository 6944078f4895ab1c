"""One evaluation from its configuration; the program evaluate calls `run`."""

import dataclasses
import os
from typing import Any

import keras
import numpy as np
from etils import epath

from keras_preact.evaluation import (
    answers,
    examples,
    figures,
    images,
    measuring,
    models,
    page,
    report,
)
from keras_preact.evaluation import multi_label as several
from keras_preact.evaluation.config import EvaluateConfig
from keras_preact.evaluation.report import Evaluation
from keras_preact.prediction.loading import Classifier
from keras_preact.support.console import say
from keras_preact.support.errors import RunError
from keras_preact.support.files import check_replaceable, sealed
from keras_preact.support.paths import usable

REPORT, PAGE = "report.json", "report.html"


class UnreadableImagesError(RunError):
    """Some files could not be read as images; the report is about all others."""

    exit_code = 3


def evaluate(model: keras.Model | Classifier | os.PathLike | str, **options: Any) -> Evaluation:
    """Evaluates a model on labelled images; the flags of `keras-preact evaluate` as a function.

    Args:
        model: a Keras model from normalized images to logits or probabilities, with its
            preprocessing; or the path of a run, of a .keras file, of the folder of a SavedModel's
            version or of a .tflite file; or what `prediction.load` has made of one of them.
        options: fields of `EvaluateConfig`. A report is written where output is given.

    Returns:
        The evaluation; its `numbers` are by name, its `answers` hold the probabilities.

    Raises:
        ValueError: if the model, the data or an option cannot be used, or they do not fit.
        RunError: if a probability is not finite.
        OSError: if the report cannot be written.
    """
    config = EvaluateConfig(model=models.name_of(model), **options)
    if config.output is not None:
        _check(config, config.output)
    found = _evaluate(config, model)
    if config.output is not None:
        write(found, usable(config.output, "output", wildcards=True))
    return found


def run(config: EvaluateConfig) -> Evaluation:
    """Evaluates a model and writes the report.

    Raises:
        ValueError: if the model, the data or the output cannot be used, or they do not fit.
        UnreadableImagesError: at the end, if files could not be read and
            neither config.skip_bad_images nor that of the run is set.
        RunError: if a probability is not finite.
        OSError: if the report cannot be written.
    """
    if config.output is not None:
        _check(config, config.output)
    found = _evaluate(config, config.model, lambda *place: _check(config, _default_output(*place)))
    folder = usable(config.output or _default_output(found.model, found.split), "output", True)
    write(found, folder)
    say(f"{report.summary(found)}\nReport: {folder / PAGE}")
    if problems := found.problems:
        lines = report.unreadable(problems)
        trained_so = found.model.run is not None and found.model.run.skip_bad_images
        if not (config.skip_bad_images or trained_so):
            raise UnreadableImagesError(
                f"{len(problems):,} files could not be read as images; the report is about all "
                f"others:\n{lines}"
            )
        say(f"Left out {len(problems):,} files that could not be read as images:\n{lines}")
    return found


def _evaluate(config, given, check_default=lambda model, split: None) -> Evaluation:
    model = models.load(given, config)
    labelled, split = images.load(config, model)
    images.match(labelled, model)
    if config.output is None:
        check_default(model, split)
    other = models.load(config.compare, config) if config.compare else None
    if other:
        images.match(labelled, other)
    found = answers.answer(model, labelled, config.batch_size, config.crops)
    temperatures = [each.preprocessing.temperature for each in (model, other) if each]
    if other is None:
        measures = measuring.measure(found.answers, config, *temperatures)
        return Evaluation(config, model, labelled, split, found, measures)
    second = answers.answer(other, labelled, config.batch_size, config.crops)
    common = np.intersect1d(found.indices, second.indices)
    # Models of different sizes may refuse different files.
    problems = found.problems | second.problems
    found, second = (
        dataclasses.replace(each.restricted(common), problems=problems) for each in (found, second)
    )
    comparison = measuring.compare(found.answers, second.answers, config, tuple(temperatures))
    return Evaluation(
        config, model, labelled, split, found, comparison.first, other, second, comparison
    )


def _default_output(model, split):
    return os.path.join(model.name, "evaluation", split) if model.run else "evaluation"


def _check(config, folder):
    folder = usable(folder, "output", wildcards=True)
    check_replaceable(folder, config.overwrite, "output", "a report")


def write(evaluation: Evaluation, folder: epath.Path) -> None:
    """Writes the report to its folder, which takes its name only once it is whole.

    Raises:
        OSError: if it cannot be written.
    """
    files = dict(_files(evaluation))
    folder.parent.mkdir(parents=True, exist_ok=True)
    with sealed(folder) as unfinished:
        for name, data in files.items():
            (unfinished / name).write_bytes(data)


def _files(evaluation):
    measures, found, config = evaluation.measures, evaluation.answers, evaluation.config
    is_several = isinstance(found, several.Answers)
    after = measures.temperature and measures.temperature.reliability
    what = "fraction of true ones" if is_several else "accuracy"
    pngs = {"reliability.png": figures.reliability(measures.reliability, after, what)}
    if is_several:
        values = measures.by_class["average_precision"]
        pngs["average_precision.png"] = figures.average_precision(values, found.class_names)
    else:
        pngs["confusion.png"] = figures.confusion(found.confusion, found.class_names)
        yield "confusion.csv", report.confusion_csv(found.confusion, found.class_names)
    shown, why = _pictures(evaluation)
    yield from pngs.items()
    yield REPORT, report.to_json(evaluation)
    yield PAGE, page.html(evaluation, pngs, *shown, why)
    yield "per_class.csv", report.per_class_csv(measures, found.class_names)
    yield "predictions.csv", report.predictions_csv(evaluation)
    if evaluation.comparison:
        yield "comparison.csv", report.comparison_csv(evaluation)
    if config.probabilities:
        yield "probabilities.npz", report.probabilities_npz(evaluation)


def _pictures(evaluation):
    """The pictures of mistakes and of uncertain images, and why they have no Grad-CAM."""
    found, config = evaluation.answers, evaluation.config
    most = config.shown_images
    chosen = (examples.mistakes(found, most), examples.uncertain(found, most)) if most else ([], [])

    def drawn(with_maps):
        parts = (evaluation.model, evaluation.images, evaluation.answered.indices, found)
        return [examples.pictures(*parts, some, with_maps) for some in chosen]

    if not config.grad_cam:
        return drawn(False), "--nograd_cam leaves it out"
    if evaluation.model.network is None:
        return drawn(False), (
            "it needs the gradients of a Keras model, a run or a .keras file, and this is an export"
        )
    try:
        return drawn(True), None
    except ValueError as error:
        return drawn(False), str(error)
