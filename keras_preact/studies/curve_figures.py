"""The learning curves and final errors of several runs as figures."""

import dataclasses
import textwrap
from collections.abc import Sequence

import numpy as np

from keras_preact.studies.formulas import Html, with_formulas
from keras_preact.studies.page import Figure
from keras_preact.studies.wording import between, percent
from keras_preact.support.plotting import (
    BLUE,
    as_png,
    legend,
    marked,
    plain,
    style,
    titled_figure,
)

_ERROR_LABEL = "error (%)"
_HALF_SPLIT = 0.15
# Longer names at the side are wrapped.
_LABEL_LETTERS = 36


@dataclasses.dataclass(frozen=True)
class RunCurves:
    """The learning curves of a run. Arrays are (evaluations,).

    Args:
        label: of the run, for a legend.
        kind: the name that it shares with runs of other depths.
        depth: weighted layers.
        steps: int.
        train_error: of the training images, 0 to 1.
        eval_error: of the evaluation images, 0 to 1.
    """

    label: str
    kind: str
    depth: int
    steps: np.ndarray
    train_error: np.ndarray
    eval_error: np.ndarray


def figures(runs: Sequence[RunCurves]) -> list[Figure]:
    """The figures of some runs."""
    return [
        Figure(
            "curves",
            "Learning curves",
            curves_caption(runs),
            draw_curves(runs, "Learning curves"),
            "Training and evaluation error of each run against the step",
        ),
        Figure(
            "final_errors",
            "Final errors",
            final_errors_caption(runs),
            draw_final_errors(runs, "Final errors"),
            "Final training and evaluation error of each run",
        ),
    ]


def curves_caption(runs: Sequence[RunCurves]) -> Html:
    """Tells the range of the errors at the end."""
    names = [run.label for run in runs]
    train, evaluation = (
        between(names, [errors[-1] for errors in of_split], percent)
        for of_split in zip(*((run.train_error, run.eval_error) for run in runs), strict=True)
    )
    return with_formulas(
        "Error on the evaluation images (solid) and on the augmented training images (dashed). At "
        f"the end the evaluation error is {evaluation}, the training error {train}."
    )


def final_errors_caption(runs: Sequence[RunCurves]) -> Html:
    """Tells whether the errors rise with depth, or at one depth the gap between the two."""
    remarks = [_by_depth_caption(kind, of_kind) for kind, of_kind in _kinds(runs).items()]
    if any(remarks):
        return with_formulas(
            f"{' '.join(filter(None, remarks))} Degradation is a training error that rises with "
            "depth."
        )
    gaps = [run.eval_error[-1] - run.train_error[-1] for run in runs]
    return with_formulas(
        "At the end the evaluation error minus the training error is "
        f"{between([run.label for run in runs], gaps, percent)}."
    )


def _by_depth_caption(kind, runs):
    """Compares the shallowest and the deepest net of a kind; empty for one depth."""
    first, last = runs[0], runs[-1]
    if first.depth == last.depth:
        return ""
    changes = []
    for split, field in (("training", "train_error"), ("evaluation", "eval_error")):
        ends = [getattr(run, field)[-1] for run in (first, last)]
        verb = "rises" if ends[1] > ends[0] else "falls" if ends[1] < ends[0] else "stays"
        from_to = "at {0}" if verb == "stays" else "from {0} to {1}"
        changes.append(f"the {split} error {verb} {from_to.format(*map(percent, ends))}")
    return (
        f"{plain(kind)}: with {last.depth} in place of {first.depth} layers {changes[0]} and "
        f"{changes[1]}."
    )


def _kinds(runs):
    """The runs of each kind, by depth; kinds in the order given."""
    return {
        kind: sorted((run for run in runs if run.kind == kind), key=lambda run: run.depth)
        for kind in dict.fromkeys(run.kind for run in runs)
    }


@as_png(formulas=True)
def draw_curves(runs: Sequence[RunCurves], title: str) -> bytes:
    """Draws the errors of all runs against the step, as in figure 6 of the paper, as a PNG file.

    Training is dashed, evaluation solid.
    """
    picture = titled_figure(title, 9, 5)
    axes = picture.subplots()
    for place, run in enumerate(runs):
        look = {**style(place), "markersize": 5, "markevery": marked(run.eval_error, 0)}
        axes.plot(run.steps, 100 * run.eval_error, label=plain(run.label), **look)
        axes.plot(run.steps, 100 * run.train_error, linestyle="--", linewidth=1, **look)
    axes.set(xlabel="step", ylabel=_ERROR_LABEL, ylim=(0, None))
    axes.grid(alpha=0.3)
    legend(picture, [*axes.get_lines()[::2], *_splits()])
    return picture


@as_png(formulas=True)
def draw_final_errors(runs: Sequence[RunCurves], title: str) -> bytes:
    """Draws the last errors of all runs as a PNG file, against the depth if there are several."""
    if len({run.depth for run in runs}) > 1:
        return _by_depth(runs, title)
    from matplotlib.patches import Patch

    names = [plain(textwrap.fill(run.label, _LABEL_LETTERS)) for run in runs]
    lines = 1 + max(name.count("\n") for name in names)
    picture = titled_figure(title, 9, 1.6 + max(0.5, 0.2 * lines) * len(runs))
    axes = picture.subplots()
    for place, run in enumerate(runs):
        for error, offset, fill in (
            (run.eval_error, -_HALF_SPLIT, BLUE),
            (run.train_error, _HALF_SPLIT, "none"),
        ):
            axes.barh(place + offset, 100 * error[-1], 0.28, color=fill, edgecolor=BLUE)
            axes.annotate(
                f"{100 * error[-1]:.2f}",
                (100 * error[-1], place + offset),
                (4, 0),
                textcoords="offset points",
                va="center",
                fontsize="small",
            )
    axes.set_yticks(range(len(runs)), names)
    axes.invert_yaxis()
    axes.set_xlabel(_ERROR_LABEL)
    axes.margins(x=0.12)
    axes.set_xlim(left=0)
    axes.grid(axis="x", alpha=0.3)
    axes.set_axisbelow(True)
    filled = {"evaluation": BLUE, "training": "none"}
    legend(
        picture,
        [Patch(facecolor=fill, edgecolor=BLUE, label=name) for name, fill in filled.items()],
    )
    return picture


def _by_depth(runs, title):
    picture = titled_figure(title, 9, 5)
    axes = picture.subplots()
    for place, (kind, of_kind) in enumerate(_kinds(runs).items()):
        depths = [run.depth for run in of_kind]
        errors = [100 * run.eval_error[-1] for run in of_kind]
        axes.plot(depths, errors, label=plain(kind), **style(place))
        errors = [100 * run.train_error[-1] for run in of_kind]
        axes.plot(depths, errors, linestyle="--", linewidth=1, **style(place))
    axes.set(xlabel="depth (weighted layers)", ylabel=_ERROR_LABEL, ylim=(0, None))
    axes.grid(alpha=0.3)
    legend(picture, [*axes.get_lines()[::2], *_splits()])
    return picture


def _splits():
    from matplotlib.lines import Line2D

    return [
        Line2D([], [], color="0.3", label="evaluation"),
        Line2D([], [], color="0.3", linestyle="--", linewidth=1, label="training"),
    ]
