"""The figures of each class at the end of a run: a table, and bars where labels are several."""

from collections.abc import Sequence

import numpy as np

from keras_preact.support.plotting import BLUE, ORANGE, as_png, figure
from keras_preact.support.text import markdown, printable
from keras_preact.training.steps.scores import Evaluation, MultiLabelEvaluation

MOST_CLASSES = 40
_MOST_LETTERS = 20


def table(evaluation: Evaluation | MultiLabelEvaluation, names: Sequence[str]) -> str:
    """Returns a table in Markdown with a row for each class."""
    if isinstance(evaluation, Evaluation):
        head = ("class", "accuracy", "images")
        columns = (evaluation.class_accuracies, evaluation.confusion.sum(axis=1))
    else:
        head = ("class", "average precision", "F1", "images")
        columns = (evaluation.class_average_precisions, evaluation.class_f1, evaluation.true)
    *shares, counts = columns
    lines = [
        f"| {markdown(name)} | {' | '.join(f'{share:.2%}' for share in of_class)} | {count:,} |"
        for name, *of_class, count in zip(names, *shares, counts, strict=True)
    ]
    return "\n".join([f"| {' | '.join(head)} |", "|---" * len(head) + "|", *lines])


@as_png(dpi=100)
def bars(evaluation: MultiLabelEvaluation, names: Sequence[str], title: str) -> bytes:
    """Draws average precision and F1 score of each class as a PNG, the lowest precision first.

    Of many classes, those with the lowest are shown.

    Args:
        evaluation: of images with several labels.
        names: of the classes, by label.
        title: above the picture.
    """
    order = np.argsort(evaluation.class_average_precisions, kind="stable")[:MOST_CLASSES]
    picture = figure(figsize=(7, 1.5 + 0.3 * len(order)))
    axes = picture.subplots()
    places = np.arange(len(order))
    for offset, values, color, label in (
        (-0.2, evaluation.class_average_precisions, BLUE, "average precision"),
        (0.2, evaluation.class_f1, ORANGE, "F1 score"),
    ):
        widths = 100 * np.nan_to_num(values[order])
        axes.barh(places + offset, widths, 0.36, color=color, label=label)
    axes.set_yticks(places, [printable(names[place])[:_MOST_LETTERS] for place in order])
    axes.invert_yaxis()
    some = f", the {len(order)} lowest of {len(names):,} classes" if len(order) < len(names) else ""
    axes.set(xlabel="%", xlim=(0, 100), title=f"{title}{some}")
    axes.grid(axis="x", alpha=0.3)
    axes.set_axisbelow(True)
    axes.legend(loc="lower right", fontsize="small")
    return picture
