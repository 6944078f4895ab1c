"""The pictures of a run: learning curves, augmented images and the confusion matrix."""

from collections.abc import Sequence

import numpy as np
from etils import epath

from keras_preact.support.files import write_whole
from keras_preact.support.plotting import BLUE, HEAT, ORANGE, as_png, figure
from keras_preact.support.text import printable
from keras_preact.training.reporting.metrics_file import Row

TRAIN_COLOR, EVAL_COLOR = ORANGE, BLUE
MOST_IMAGES = 16
MOST_NAMES = 30
MOST_LETTERS = 30


def curves(
    rows: Sequence[Row], title: str, path: epath.PathLike, drop_steps: Sequence[int] = ()
) -> None:
    """Draws error and loss over the steps, as in figure 6 of the paper, and writes a PNG.

    With several labels, mean average precision and F1 score take the place of the error.

    Args:
        rows: of metrics.csv, at least one.
        title: above the picture.
        path: of the PNG.
        drop_steps: steps at which the learning rate drops, marked by vertical lines.
    """
    write_whole(path, _curves(rows, title, drop_steps))


@as_png
def _curves(rows, title, drop_steps):
    picture = figure(figsize=(10, 4))
    picture.suptitle(title)
    figure_axes, loss_axes = picture.subplots(1, 2)
    steps = [row.step for row in rows]
    style = {"markersize": 3, "marker": "o" if len(rows) < 40 else None}
    train_style = {"color": TRAIN_COLOR, "linestyle": "--", "label": "training", **style}
    eval_style = {"color": EVAL_COLOR, "label": "evaluation", **style}
    if rows[-1].eval_mean_average_precision is None:
        _draw_errors(figure_axes, rows, train_style, eval_style)
    else:
        _draw_precisions(figure_axes, rows, eval_style)
    loss_axes.plot(steps, [row.train_loss for row in rows], **train_style)
    loss_axes.plot(steps, [row.eval_loss for row in rows], **eval_style)
    loss_axes.set(xlabel="step", ylabel="loss (nats)", yscale="log")
    for axes in (figure_axes, loss_axes):
        for step in drop_steps:
            if step < steps[-1]:
                axes.axvline(step, color="0.7", linewidth=0.8, zorder=0)
        axes.grid(alpha=0.3)
        axes.legend()
    return picture


def _draw_errors(axes, rows, train_style, eval_style):
    steps = [row.step for row in rows]
    errors = [100 * (1 - row.eval_accuracy) for row in rows]
    axes.plot(steps, [100 * (1 - row.train_accuracy) for row in rows], **train_style)
    axes.plot(steps, errors, **eval_style)
    axes.set(xlabel="step", ylabel="error (%)", ylim=(0, None))
    axes.set_title(f"evaluation error {errors[-1]:.2f} % at the end", fontsize="medium")


def _draw_precisions(axes, rows, eval_style):
    """Draws the figures of an evaluation with several labels."""
    # A run may have been evaluated by an earlier version, without these figures.
    rows = [row for row in rows if row.eval_mean_average_precision is not None]
    steps = [row.step for row in rows]
    precisions = [100 * row.eval_mean_average_precision for row in rows]
    scores = [100 * row.eval_macro_f1 for row in rows]
    axes.plot(steps, precisions, **{**eval_style, "label": "mean average precision"})
    axes.plot(steps, scores, **{**eval_style, "label": "macro F1", "linestyle": ":"})
    axes.set(xlabel="step", ylabel="evaluation (%)", ylim=(0, 100))
    axes.set_title(f"mean average precision {precisions[-1]:.2f} % at the end", fontsize="medium")


@as_png(dpi=100)
def batch(images: np.ndarray, labels: np.ndarray, names: Sequence[str]) -> bytes:
    """Draws the first images of a batch, each under the name of its class, as a PNG.

    Args:
        images: uint8 (batch, height, width, channels), of 1 or 3 channels.
        labels: int (batch,), or of several labels (batch, classes).
        names: of the classes, by label.
    """
    count = min(len(images), MOST_IMAGES)
    picture = figure(figsize=(8, 2.2 * -(-count // 4)))
    for place, axes in enumerate(np.ravel(picture.subplots(-(-count // 4), 4))):
        axes.axis("off")
        if place < count:
            # Without limits, matplotlib would stretch grey to the image's own range.
            axes.imshow(images[place], cmap="gray", vmin=0, vmax=255)
            title = _title(labels[place], names)
            axes.set_title(printable(title)[:MOST_LETTERS], fontsize="small")
    return picture


def _title(label, names):
    if np.ndim(label) == 0:
        return names[label]
    return ", ".join(names[place] for place in np.flatnonzero(label))


@as_png(dpi=100)
def confusion(counts: np.ndarray, names: Sequence[str], title: str) -> bytes:
    """Draws a confusion matrix, coloured by the shares of each true class, as a PNG.

    Args:
        counts: int (classes, classes): images by true class (row) and predicted class.
        names: of the classes, by label; shown up to 30 of them.
        title: above the picture.
    """
    picture = figure(figsize=(7, 6))
    axes = picture.subplots()
    shares = 100 * counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    image = axes.imshow(shares, cmap=HEAT, vmin=0, vmax=100)
    picture.colorbar(image, label="share of the true class (%)")
    axes.set(xlabel="predicted class", ylabel="true class", title=title)
    if len(names) <= MOST_NAMES:
        # Long names would leave no room for the matrix.
        short = [printable(name)[: MOST_LETTERS // 2] for name in names]
        axes.set_xticks(range(len(names)), short, rotation=90)
        axes.set_yticks(range(len(names)), short)
    if len(names) <= 12:
        for row, column in np.argwhere(counts):
            color = "black" if shares[row, column] > 60 else "white"
            text = f"{counts[row, column]}"
            axes.text(column, row, text, ha="center", va="center", color=color, fontsize="small")
    return picture
