"""The learning curves and final errors of configurations, each of one or more runs, as figures."""

import dataclasses
import textwrap
from collections.abc import Sequence

import numpy as np

from keras_preact.studies.formulas import Html, with_formulas
from keras_preact.studies.page import Figure
from keras_preact.studies.wording import between, percent
from keras_preact.support.plotting import (
    BLACK,
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
_BOLD = {"linewidth": 2.4}
_THIN = {"linewidth": 0.9, "linestyle": "--"}
_LEGEND_LINE_INCHES = 0.2
# More groups have smaller markers.
_FEW = 6
# From so many evaluations on, the axis fits the last three quarters of training.
_LONG = 20


@dataclasses.dataclass(frozen=True)
class GroupCurves:
    """The learning curves of runs that differ in their seeds alone.

    Args:
        label: of the runs, for a legend.
        kind: the name that they share with runs of other depths.
        depth: weighted layers.
        steps: of the evaluations that all runs have, int (evaluations,).
        train_error: of the training images, 0 to 1, (runs, evaluations).
        eval_error: of the evaluation images, 0 to 1, (runs, evaluations).
        left_out: number of evaluations that not all runs have.
    """

    label: str
    kind: str
    depth: int
    steps: np.ndarray
    train_error: np.ndarray
    eval_error: np.ndarray
    left_out: int = 0

    @property
    def runs(self) -> int:
        return len(self.eval_error)

    @property
    def name(self) -> str:
        """The label, with the number of runs where there are several."""
        return self.label if self.runs == 1 else f"{self.label} ({self.runs} runs)"


def mean_and_std(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns mean and sample standard deviation over runs, the first axis; 0 for one run."""
    values = np.asarray(values, "float64")
    if len(values) == 1:
        return values[0], np.zeros_like(values[0])
    return values.mean(axis=0), values.std(axis=0, ddof=1)


def figures(groups: Sequence[GroupCurves]) -> list[Figure]:
    """The figures of some configurations."""
    return [
        Figure(
            "curves",
            "Learning curves",
            curves_caption(groups),
            draw_curves(groups, "Learning curves"),
            "Training and evaluation error of each configuration against the step",
        ),
        Figure(
            "final_errors",
            "Final errors",
            final_errors_caption(groups),
            draw_final_errors(groups, "Final errors"),
            "Final training and evaluation error of each configuration",
        ),
    ]


def curves_caption(groups: Sequence[GroupCurves]) -> Html:
    """Tells the range of the errors at the end, and what the lines and the bands are."""
    names = [group.label for group in groups]
    train, evaluation = (
        between(names, [_final(errors)[0] for errors in of_split], percent)
        for of_split in zip(*((g.train_error, g.eval_error) for g in groups), strict=True)
    )
    text = (
        "Error on the evaluation images (bold) and on the augmented training images (thin and "
        "dashed)."
    )
    if any(group.runs > 1 for group in groups):
        text += (
            " Lines are means over runs that differ in their seeds alone, bands reach one standard "
            "deviation to each side."
        )
    for group in groups:
        if group.left_out:
            text += (
                f" Of {plain(group.label)}, {group.left_out} evaluations are left out, which not "
                f"all of its {group.runs} runs have; its curve ends at step {group.steps[-1]:,}."
            )
    if _top(groups):
        text += " Higher errors at the beginning are above the picture."
    return with_formulas(
        f"{text} At the end the evaluation error is {evaluation}, the training error {train}."
    )


def final_errors_caption(groups: Sequence[GroupCurves]) -> Html:
    """Tells whether the errors rise with depth, or at one depth the gap between the two."""
    remarks = [_by_depth_caption(kind, of_kind) for kind, of_kind in _kinds(groups).items()]
    text = f"{' '.join(filter(None, remarks))} Degradation is a training error that rises with "
    text += "depth."
    if not any(remarks):
        gaps = [_final(group.eval_error)[0] - _final(group.train_error)[0] for group in groups]
        text = (
            "At the end the evaluation error minus the training error is "
            f"{between([group.label for group in groups], gaps, percent)}."
        )
    if any(group.runs > 1 for group in groups):
        text += (
            " The numbers are means over runs that differ in their seeds alone, with their "
            "standard deviation; each dot is a run."
        )
    return with_formulas(text)


def _top(groups):
    """The upper end of the axis in percent; None where all errors fit."""
    last = max(group.steps[-1] for group in groups)
    if max(len(group.steps) for group in groups) < _LONG:
        return None
    late = [
        np.max(errors[:, group.steps >= last / 4], initial=0)
        for group in groups
        for errors in (group.eval_error, group.train_error)
    ]
    highest = max(np.max(group.eval_error) for group in groups)
    top = 1.1 * np.nanmax(late)
    return 100 * top if 0 < top < highest else None


def _final(errors):
    """The mean and the standard deviation of the last errors (runs, evaluations)."""
    return mean_and_std(errors[:, -1])


def _by_depth_caption(kind, groups):
    """Compares the shallowest and the deepest net of a kind; empty for one depth."""
    first, last = groups[0], groups[-1]
    if first.depth == last.depth:
        return ""
    changes = []
    for split, field in (("training", "train_error"), ("evaluation", "eval_error")):
        ends = [_final(getattr(group, field))[0] for group in (first, last)]
        verb = "rises" if ends[1] > ends[0] else "falls" if ends[1] < ends[0] else "stays"
        from_to = "at {0}" if verb == "stays" else "from {0} to {1}"
        changes.append(f"the {split} error {verb} {from_to.format(*map(percent, ends))}")
    return (
        f"{plain(kind)}: with {last.depth} in place of {first.depth} layers {changes[0]} and "
        f"{changes[1]}."
    )


def _kinds(groups):
    """The groups of each kind, by depth; kinds in the order given."""
    return {
        kind: sorted((each for each in groups if each.kind == kind), key=lambda each: each.depth)
        for kind in dict.fromkeys(each.kind for each in groups)
    }


@as_png(formulas=True)
def draw_curves(groups: Sequence[GroupCurves], title: str) -> bytes:
    """Draws the errors against the step, as in figure 6 of the paper, as a PNG file.

    Training is thin and dashed, evaluation bold; lines are means over the runs of a group, and
    bands reach a standard deviation to each side.
    """
    picture = titled_figure(title, 9, 4 + _LEGEND_LINE_INCHES * (len(groups) + 2))
    axes = picture.subplots()
    for place, group in enumerate(groups):
        look = {**style(place), "markersize": 5 if len(groups) <= _FEW else 3.5}
        for errors, line in (
            (group.eval_error, {"label": plain(group.name), **_BOLD}),
            (group.train_error, _THIN),
        ):
            mean, std = (100 * value for value in mean_and_std(errors))
            axes.plot(group.steps, mean, markevery=marked(mean, place), **look, **line)
            if group.runs > 1:
                limits = mean - std, mean + std
                color = look["color"]
                axes.fill_between(group.steps, *limits, color=color, alpha=0.18, linewidth=0)
    axes.set(xlabel="step", ylabel=_ERROR_LABEL, ylim=(0, _top(groups)))
    axes.grid(alpha=0.3)
    legend(picture, [*axes.get_lines()[::2], *_splits()])
    return picture


@as_png(formulas=True)
def draw_final_errors(groups: Sequence[GroupCurves], title: str) -> bytes:
    """Draws the last errors as a PNG file, against the depth if there are several.

    They are means over the runs of a group, each of which is a dot beside them.
    """
    if len({group.depth for group in groups}) > 1:
        return _by_depth(groups, title)
    from matplotlib.patches import Patch

    names = [plain(textwrap.fill(group.name, _LABEL_LETTERS)) for group in groups]
    lines = 1 + max(name.count("\n") for name in names)
    picture = titled_figure(title, 9, 1.6 + max(0.5, 0.2 * lines) * len(groups))
    axes = picture.subplots()
    for place, group in enumerate(groups):
        for errors, offset, fill in (
            (group.eval_error, -_HALF_SPLIT, BLUE),
            (group.train_error, _HALF_SPLIT, "none"),
        ):
            mean, std = (100 * value for value in _final(errors))
            axes.barh(place + offset, mean, 0.28, color=fill, edgecolor=BLUE)
            text, end = f"{mean:.2f}", mean
            if group.runs > 1:
                text += f" \N{PLUS-MINUS SIGN} {std:.2f}"
                end = _draw_runs(axes, place + offset, 100 * errors[:, -1])
            axes.annotate(
                text,
                (end, place + offset),
                (6 if group.runs > 1 else 4, 0),
                textcoords="offset points",
                va="center",
                fontsize="small",
            )
    axes.set_yticks(range(len(groups)), names)
    axes.invert_yaxis()
    axes.set_xlabel(_ERROR_LABEL)
    axes.margins(x=0.12 if all(group.runs == 1 for group in groups) else 0.24)
    axes.set_xlim(left=0)
    axes.grid(axis="x", alpha=0.3)
    axes.set_axisbelow(True)
    filled = {"evaluation": BLUE, "training": "none"}
    legend(
        picture,
        [Patch(facecolor=fill, edgecolor=BLUE, label=name) for name, fill in filled.items()],
    )
    return picture


def _draw_runs(axes, place, errors):
    """Draws a dot for each run on a bar, and returns the highest error."""
    look = {"color": BLACK, "alpha": 0.6, "linewidths": 0, "zorder": 3}
    axes.scatter(errors, np.full(len(errors), place), 14, **look)
    return np.max(errors)


def _by_depth(groups, title):
    picture = titled_figure(title, 9, 5)
    axes = picture.subplots()
    for place, (kind, of_kind) in enumerate(_kinds(groups).items()):
        depths, look = [group.depth for group in of_kind], style(place)
        for field, line in (
            ("eval_error", {"label": plain(kind), **_BOLD}),
            ("train_error", _THIN),
        ):
            every = [getattr(group, field) for group in of_kind]
            axes.plot(depths, [100 * _final(errors)[0] for errors in every], **look, **line)
            for depth, errors in zip(depths, every, strict=True):
                if len(errors) > 1:
                    dots = {"color": look["color"], "alpha": 0.6, "linewidths": 0}
                    axes.scatter([depth] * len(errors), 100 * errors[:, -1], 14, **dots)
    axes.set(xlabel="depth (weighted layers)", ylabel=_ERROR_LABEL, ylim=(0, None))
    axes.grid(alpha=0.3)
    legend(picture, [*axes.get_lines()[::2], *_splits()])
    return picture


def _splits():
    from matplotlib.lines import Line2D

    return [
        Line2D([], [], color="0.3", label="evaluation", **_BOLD),
        Line2D([], [], color="0.3", label="training", **_THIN),
    ]
