"""Gradients of new networks of several depths, as a report."""

from collections.abc import Sequence

import numpy as np

from keras_preact.analysis.draws import initialisation
from keras_preact.analysis.results import Initialisation
from keras_preact.data import Dataset
from keras_preact.studies import captions, initialisation_plot
from keras_preact.studies.config import AnalysisConfig
from keras_preact.studies.networks import Subject, describe, kinds, new
from keras_preact.studies.output import Report
from keras_preact.studies.page import Table
from keras_preact.studies.tables import csv_bytes
from keras_preact.support.console import say
from keras_preact.training.config import TrainConfig


def study(
    networks: Sequence[TrainConfig], data: Sequence[Dataset], config: AnalysisConfig
) -> Report:
    """Measures several draws of each network.

    Args:
        networks: the configurations of one or more.
        data: of each.
        config: of the analysis.
    """
    results, measured_on = [], {}
    for network, its_data, kind in zip(networks, data, kinds(networks), strict=True):
        say(f"Measuring {describe(network)}, {config.draws} times")
        result, images = _measure(network, its_data, config, kind)
        results.append(result)
        measured_on[images] = None
    names = "; ".join(map(describe, networks))
    png = initialisation_plot.initialisation(results, "The gradient before training")
    rows = [(result.label, result.depth, *_ends(result)) for result in results]
    return Report(
        title=f"Gradients before training: {names}",
        facts={
            "Measured on": "; ".join(measured_on),
            "Draws of the weights": f"{config.draws}, from seed {config.seed} on",
        },
        pictures=[captions.picture("initialisation", png, "", names)],
        tables=[
            Table(
                "At the first unit",
                (
                    *("network", "depth", "gradient", "lowest", "highest"),
                    *("through shortcuts", "equation (8)"),
                ),
                rows,
                "Norm of the gradient at the input of the first unit over that at the output of "
                "the last one: median, lowest and highest draw; of the part that came through "
                "shortcuts alone, the median; and the product of the shortcuts' factors.",
            )
        ],
        csv=csv_bytes(map(_part, results)),
        summary=[
            f"  {name}, depth {depth}: gradient at the first unit {median} times that at the last, "
            f"through shortcuts alone {through} times, by equation (8) {product}"
            for name, depth, median, _, _, through, product in rows
        ],
    )


def _measure(network, data, config, label):
    """The gradients of a network, and on which images."""

    def subject(draw) -> Subject:
        return new(network.updated(seed=config.seed + draw), data)

    first = subject(0)
    images, labels = first.training_images(config.images, config.seed)
    result = initialisation(
        lambda draw: (subject(draw) if draw else first).model,
        images,
        labels,
        label=label,
        depth=network.depth,
        draws=config.draws,
    )
    return result, first.describe_images(len(images))


def _ends(result: Initialisation) -> list[str]:
    first = result.gradient_norm[:, 0]
    through = np.median(result.shortcut_norm[:, 0])
    product = result.shortcut_product[0]
    figures = np.median(first), first.min(), first.max(), through, product
    return [f"{figure:.3g}" for figure in figures]


def _part(result):
    columns = {"shortcut_product": result.shortcut_product}
    for name in ("gradient_norm", "shortcut_norm"):
        norm = getattr(result, name)
        columns |= {
            f"relative_{name}_{word}": function(norm, axis=0)
            for word, function in (("median", np.median), ("lowest", np.min), ("highest", np.max))
        }
    return {"network": result.label, "depth": result.depth}, result.units, columns
