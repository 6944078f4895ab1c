"""The study of signal and gradient in each unit of networks."""

from collections.abc import Sequence

import numpy as np

from keras_preact.analysis import Backward, Forward, backward, forward
from keras_preact.studies import gradient_figures, path_figure, signal_figures, training_figures
from keras_preact.studies.config import AnalysisConfig
from keras_preact.studies.formulas import with_formulas
from keras_preact.studies.networks import Network
from keras_preact.studies.output import Report, columns, csv_bytes
from keras_preact.studies.page import Table
from keras_preact.support.console import say
from keras_preact.training.reporting import propagation_file


def study(
    networks: Sequence[Network],
    config: AnalysisConfig,
    most_units_for_paths: int = path_figure.MOST_UNITS,
) -> Report:
    """Measures networks, one after the other.

    Args:
        networks: one or more.
        config: of the analysis.
        most_units_for_paths: deeper networks have no figure of their path lengths.
    """
    figures, measured, measured_on = [], [], {}
    for number, network in enumerate(networks, 1):
        say(f"Measuring {network.label}")
        images, labels = network.training_images(config.images, config.seed)
        results = forward(network.model, images), backward(network.model, images, labels)
        own = [
            *signal_figures.figures(results[0], network.label),
            *gradient_figures.figures(results[1], network.label),
        ]
        if len(results[0].units) <= most_units_for_paths:
            own.append(path_figure.figure(network.model, images, labels, network.label))
        if log := network.folder and propagation_file.read(network.folder.propagation):
            own += training_figures.figures(log, network.label)
        prefix = f"net{number}_" if len(networks) > 1 else ""
        figures += [figure.of(network.label, prefix) for figure in own]
        measured.append(results)
        measured_on[network.describe_images(len(images))] = None
    labels = [network.label for network in networks]
    if len(networks) > 1:
        gradients = [(name, b) for name, (_, b) in zip(labels, measured, strict=True)]
        figures.insert(0, gradient_figures.beside(gradients).of(", ".join(labels)))
    parts = (
        ({"network": name}, f.units, columns(f, b))
        for name, (f, b) in zip(labels, measured, strict=True)
    )
    return Report(
        title="Signal propagation: " + "; ".join(labels),
        facts={"Measured on": "; ".join(measured_on)},
        figures=figures,
        tables=[_checks(labels, measured)],
        csv=csv_bytes(parts),
        summary=[_line(name, *results) for name, results in zip(labels, measured, strict=True)],
    )


def _checks(labels, measured):
    rows = [
        (name, f"{f.sum_error.max():.1e}", f"{b.split_error.max():.1e}")
        for name, (f, b) in zip(labels, measured, strict=True)
    ]
    return Table(
        "Checks",
        ("network", "equation (4), largest deviation", "equation (5), largest deviation"),
        rows,
        with_formulas(
            "Equation (4): the difference of its two sides over the norm of $x_L$; rounding alone "
            "where $h$ and $f$ are the identity. Equation (5): the difference between the gradient "
            "and the sum of its two terms over the norm of the gradient; always rounding alone."
        ),
    )


def _line(name: str, f: Forward, b: Backward) -> str:
    # A gradient that has exploded divides to infinity or NaN.
    with np.errstate(divide="ignore", invalid="ignore"):
        whole, through = (
            norm[0] / np.float64(b.output_gradient_norm)
            for norm in (b.gradient_norm, b.shortcut_norm)
        )
    return (
        f"  {name}: the gradient at the first unit is {whole:.3g} times that at the last; through "
        f"shortcuts alone {through:.3g} times, by equation (8) {b.shortcut_product[0]:.3g}; f "
        f"truncates up to {np.max(f.truncated_fraction):.1%}"
    )
