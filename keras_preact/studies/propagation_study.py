"""Signal and gradient in each unit of networks, as a report."""

from collections.abc import Sequence

import numpy as np

from keras_preact.analysis import Backward, Forward, backward, forward
from keras_preact.analysis.paths import path_lengths
from keras_preact.studies import captions, plots, study_plots
from keras_preact.studies.config import AnalysisConfig
from keras_preact.studies.networks import Subject
from keras_preact.studies.output import Report
from keras_preact.studies.page import Picture, Table
from keras_preact.studies.tables import columns, csv_bytes
from keras_preact.support.console import say
from keras_preact.training.reporting import propagation_figure, propagation_file

# The work of `path_lengths` grows with the square of the units.
MOST_UNITS_FOR_PATHS = 60
PATH_IMAGES = 16


def study(subjects: Sequence[Subject], config: AnalysisConfig) -> Report:
    """Measures networks, one after the other.

    Args:
        subjects: one or more.
        config: of the analysis.
    """
    shown, measured, measured_on = [], [], {}
    for number, subject in enumerate(subjects, 1):
        say(f"Measuring {subject.label}")
        images, labels = subject.training_images(config.images, config.seed)
        results = forward(subject.model, images), backward(subject.model, images, labels)
        prefix = f"net{number}_" if len(subjects) > 1 else ""
        shown += _pictures(subject, *results, prefix)
        if len(results[0].units) <= MOST_UNITS_FOR_PATHS:
            shown.append(paths_picture(subject, images, labels, prefix))
        shown += _training(subject, prefix)
        measured.append(results)
        measured_on[subject.describe_images(len(images))] = None
    labels = [subject.label for subject in subjects]
    gradients = [(name, of_net[1]) for name, of_net in zip(labels, measured, strict=True)]
    if len(subjects) > 1:
        png = plots.gradients_beside(gradients, "Gradients side by side")
        shown.insert(0, captions.picture("gradients", png, "", ", ".join(labels)))
    tables = (
        ({"network": name}, of_net[0].units, columns(*of_net))
        for name, of_net in zip(labels, measured, strict=True)
    )
    return Report(
        title="Signal propagation: " + "; ".join(labels),
        facts={"Measured on": "; ".join(measured_on)},
        pictures=shown,
        tables=[_checks(labels, measured)],
        csv=csv_bytes(tables),
        summary=[_line(name, *of_net) for name, of_net in zip(labels, measured, strict=True)],
    )


def _pictures(subject: Subject, f: Forward, b: Backward, prefix: str) -> list[Picture]:
    drawn = {
        "signals": plots.signals(f, f"Signals: {subject.label}"),
        "sum_error": plots.sum_error(f, f"Equation (4): {subject.label}"),
        "truncation": plots.truncation(f, f"Truncation: {subject.label}"),
        "gradient": propagation_figure.gradient(b, f"Gradient: {subject.label}"),
        "shortcut_product": plots.shortcut_product(b, f"Equation (8): {subject.label}"),
        "factors": plots.factors(b, f"Shortcut factors: {subject.label}"),
    }
    return [captions.picture(name, png, prefix, subject.label) for name, png in drawn.items()]


def paths_picture(
    subject: Subject, images: np.ndarray, labels: np.ndarray, prefix: str = ""
) -> Picture:
    """The path lengths of a network, on the first few of some images."""
    lengths = path_lengths(subject.model, images[:PATH_IMAGES], labels[:PATH_IMAGES])
    png = study_plots.path_lengths(lengths, f"Path lengths: {subject.label}")
    return captions.picture("path_lengths", png, prefix, subject.label)


def _training(subject, prefix):
    log = subject.folder and propagation_file.read(subject.folder.propagation)
    if not log:
        return []
    drawn = {
        "truncation_in_training": study_plots.over_training(
            log.steps,
            log.units,
            100 * log.truncated_fraction,
            "share truncated (%)",
            f"Truncation in training: {subject.label}",
            log=False,
        ),
        "gradient_in_training": study_plots.over_training(
            log.steps,
            log.units,
            log.gradient_norm,
            "norm of the gradient",
            f"Gradient in training: {subject.label}",
            log=True,
        ),
    }
    return [captions.picture(name, png, prefix, subject.label) for name, png in drawn.items()]


def _checks(labels, measured):
    rows = [
        (name, f"{f.sum_error.max():.1e}", f"{b.split_error.max():.1e}")
        for name, (f, b) in zip(labels, measured, strict=True)
    ]
    return Table(
        "Checks",
        ("network", "equation (4), largest deviation", "equation (5), largest deviation"),
        rows,
        "Of equation (4): relative to x_L; rounding alone where h and f are the identity. Of "
        "equation (5): between the gradient and the sum of its two terms, relative to the "
        "gradient; always rounding alone.",
    )


def _line(name: str, f: Forward, b: Backward) -> str:
    # Of what has exploded nothing can be said.
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
