"""The lesion study: a trained network without one of its units, or with two swapped."""

from collections.abc import Iterator

import numpy as np
import tensorflow as tf

from keras_preact.analysis import Lesions, lesion
from keras_preact.data.sources import spread
from keras_preact.studies import path_figure
from keras_preact.studies.config import AnalysisConfig
from keras_preact.studies.formulas import Equation, Html, with_formulas
from keras_preact.studies.networks import Network
from keras_preact.studies.output import Report, csv_bytes
from keras_preact.studies.page import Figure, Table
from keras_preact.studies.wording import are_alike, between, percent
from keras_preact.support.console import say
from keras_preact.support.plotting import (
    BLUE,
    UNIT_LABEL,
    VERMILION,
    as_png,
    legend,
    titled_figure,
    unit_axis,
)

_BATCH_IMAGES = 100
_EQUATION = Equation("x_{l+1} = f(h(x_l))")


def study(network: Network, config: AnalysisConfig) -> Report:
    """Deletes and swaps the units of a network, one or two at a time.

    Args:
        network: of a run.
        config: of the analysis.
    """
    say(f"Evaluating {network.label} without each of its units")
    found = lesion(network.model, _batches(network, config.images))
    figures = [figure(found, network.label, 1 / network.data.info.classes)]
    if len(found.units) <= path_figure.MOST_UNITS:
        images = network.training_images(seed=config.seed)
        figures.append(path_figure.figure(network.model, *images, network.label))
    with_next = np.full(len(found.units), np.nan)
    with_next[found.swapped[:, 0]] = found.swapped_accuracy
    columns = {
        "deleted_accuracy": found.deleted_accuracy,
        "swapped_with_next_accuracy": with_next,
    }
    worst = found.units[int(np.nanargmin(found.deleted_accuracy))]
    return Report(
        title=f"Lesions: {network.label}",
        facts={"Evaluated on": f"{found.images:,} evaluation images of {network.data.info.name}"},
        figures=[each.of(network.label) for each in figures],
        tables=[
            Table(
                "Accuracy",
                ("unit", "without it (%)", "swapped with the next (%)"),
                [
                    (unit, *(_percent(column[place]) for column in columns.values()))
                    for place, unit in enumerate(found.units)
                ],
                f"The unchanged network: {_percent(found.accuracy)} %.",
            )
        ],
        csv=csv_bytes([({"accuracy": f"{found.accuracy:.8g}"}, found.units, columns)]),
        summary=[
            f"  accuracy {found.accuracy:.2%} on {found.images:,} images; without one unit in the "
            f"median {np.nanmedian(found.deleted_accuracy):.2%}, lowest "
            f"{np.nanmin(found.deleted_accuracy):.2%}, without {worst}"
        ],
    )


def _batches(network, count) -> Iterator[tuple[tf.Tensor, tf.Tensor, tf.Tensor]]:
    info = network.data.info
    indices = spread(info.eval_count, count or info.eval_count)
    for images, labels, weights in network.data.eval(_BATCH_IMAGES, indices=indices):
        yield network.normalize(images), labels, weights


def _percent(accuracy):
    return "" if np.isnan(accuracy) else f"{100 * accuracy:.2f}"


def figure(lesions: Lesions, label: str, chance: float) -> Figure:
    """The accuracies as a figure; a level line becomes a sentence.

    Args:
        lesions: of one unit at least.
        label: of the network, for the title.
        chance: accuracy of guessing, 0 to 1.
    """
    accuracies = np.concatenate([lesions.deleted_accuracy, lesions.swapped_accuracy])
    is_level = are_alike(accuracies[~np.isnan(accuracies)])
    return Figure(
        "lesions",
        "Accuracy without one of the units",
        caption(lesions, chance),
        None if is_level else draw(lesions, f"Lesions: {label}", chance),
        "Accuracy against the unit that was deleted or swapped",
        [_EQUATION],
    )


def caption(lesions: Lesions, chance: float) -> Html:
    """Tells the accuracy without each unit, and with two swapped."""
    there = np.flatnonzero(~np.isnan(lesions.deleted_accuracy))
    text = (
        "A deleted unit loses its residual function: its shortcut alone is left, without any "
        f"further training. The unchanged network has an accuracy of {percent(lesions.accuracy)}, "
        f"chance is {percent(chance)}."
    )
    if there.size:
        deleted, names = lesions.deleted_accuracy[there], [lesions.units[n] for n in there]
        text += (
            f" Without one unit it is {percent(np.median(deleted))} in the median, "
            f"{between(names, deleted, percent)}."
        )
    if missing := len(lesions.units) - there.size:
        text += f" Not deleted: {missing} of the units, which change dimensions without a shortcut."
    if len(lesions.swapped):
        pairs = [f"{lesions.units[a]} and {lesions.units[b]}" for a, b in lesions.swapped]
        text += (
            f" With two neighbours swapped it is {percent(np.median(lesions.swapped_accuracy))} in "
            f"the median, {between(pairs, lesions.swapped_accuracy, percent)}."
        )
    return with_formulas(text)


@as_png(formulas=True)
def draw(lesions: Lesions, title: str, chance: float | None) -> bytes:
    """Draws the accuracy after each deletion and each swap of units, as a PNG file.

    A swap stands midway between its two units. A unit that cannot be taken out has no marker.

    Args:
        lesions: of one unit at least.
        title: above the picture.
        chance: accuracy of guessing, 0 to 1; no line for None.
    """
    picture = titled_figure(title, 9, 4.4)
    axes = picture.subplots()
    count = len(lesions.units)
    percent = 100 * np.asarray(lesions.deleted_accuracy)
    style = {"color": BLUE, "marker": "o", "markersize": 4 if count < 100 else 2}
    handles = axes.plot(
        np.arange(1, count + 1), percent, linewidth=0.8, label="one unit deleted", **style
    )
    if len(lesions.swapped):
        middles = np.mean(lesions.swapped, axis=1) + 1
        style = {"color": VERMILION, "marker": "x", "linestyle": "none", "markersize": 5}
        swapped = 100 * np.asarray(lesions.swapped_accuracy)
        handles += axes.plot(middles, swapped, label="two units swapped", **style)
    unchanged = axes.axhline(100 * lesions.accuracy, color="black", linewidth=1.2)
    unchanged.set_label(f"unchanged: {100 * lesions.accuracy:.2f} %")
    handles.append(unchanged)
    if chance is not None:
        guessed = axes.axhline(100 * chance, color="0.4", linewidth=1.2, linestyle=":")
        guessed.set_label(f"chance: {100 * chance:g} %")
        handles.append(guessed)
    axes.set(xlabel=UNIT_LABEL, ylim=(-3, 103))
    axes.set_ylabel(f"accuracy on {lesions.images:,} images (%)")
    axes.grid(alpha=0.3)
    unit_axis(axes, count)
    legend(picture, handles)
    return picture
