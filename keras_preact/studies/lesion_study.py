"""A trained network without one of its units, as a report."""

from collections.abc import Iterator

import numpy as np
import tensorflow as tf

from keras_preact.analysis.lesions import lesion
from keras_preact.data.sources import spread
from keras_preact.studies import captions, study_plots
from keras_preact.studies.config import AnalysisConfig
from keras_preact.studies.networks import Subject
from keras_preact.studies.output import Report
from keras_preact.studies.page import Table
from keras_preact.studies.propagation_study import MOST_UNITS_FOR_PATHS, paths_picture
from keras_preact.studies.tables import csv_bytes
from keras_preact.support.console import say

_BATCH_IMAGES = 100


def study(subject: Subject, config: AnalysisConfig) -> Report:
    """Deletes and swaps the units of a network, one or two at a time.

    Args:
        subject: of a run.
        config: of the analysis.
    """
    say(f"Evaluating {subject.label} without each of its units")
    found = lesion(subject.model, _batches(subject, config.images))
    chance = 1 / subject.data.info.classes
    png = study_plots.lesions(found, f"Lesions: {subject.label}", chance)
    shown = [captions.picture("lesions", png, "", subject.label)]
    if len(found.units) <= MOST_UNITS_FOR_PATHS:
        images, labels = subject.training_images(seed=config.seed)
        shown.append(paths_picture(subject, images, labels))
    swapped = {tuple(pair): accuracy for pair, accuracy in zip(*_swaps(found), strict=True)}
    with_next = [swapped.get((place, place + 1), np.nan) for place in range(len(found.units))]
    columns = {
        "deleted_accuracy": found.deleted_accuracy,
        "swapped_with_next_accuracy": np.array(with_next),
    }
    worst = found.units[int(np.nanargmin(found.deleted_accuracy))]
    return Report(
        title=f"Lesions: {subject.label}",
        facts={"Evaluated on": f"{found.images:,} evaluation images of {subject.data.info.name}"},
        pictures=shown,
        tables=[
            Table(
                "Accuracy",
                ("unit", "without it (%)", "swapped with the next (%)"),
                [
                    (unit, *(_percent(column[place]) for column in columns.values()))
                    for place, unit in enumerate(found.units)
                ],
                f"Of the unchanged network: {_percent(found.accuracy)} %.",
            )
        ],
        csv=csv_bytes([({"accuracy": f"{found.accuracy:.8g}"}, found.units, columns)]),
        summary=[
            f"  accuracy {found.accuracy:.2%} on {found.images:,} images; without one unit in the "
            f"median {np.nanmedian(found.deleted_accuracy):.2%}, lowest "
            f"{np.nanmin(found.deleted_accuracy):.2%}, without {worst}"
        ],
    )


def _batches(subject, count) -> Iterator[tuple[tf.Tensor, tf.Tensor, tf.Tensor]]:
    info = subject.data.info
    indices = spread(info.eval_count, count or info.eval_count)
    for images, labels, weights in subject.data.eval(_BATCH_IMAGES, indices=indices):
        yield subject.normalize(images), labels, weights


def _swaps(found):
    return found.swapped.tolist(), found.swapped_accuracy


def _percent(accuracy):
    return "" if np.isnan(accuracy) else f"{100 * accuracy:.2f}"
