"""The learning curves of a run as a picture."""

from collections.abc import Sequence

from etils import epath

from keras_preact.support.files import write_whole
from keras_preact.support.plotting import BLUE, ORANGE, as_png, figure
from keras_preact.training.reporting.metrics_file import Row

TRAIN_COLOR, EVAL_COLOR = ORANGE, BLUE


def plot(
    rows: Sequence[Row], title: str, path: epath.PathLike, drop_steps: Sequence[int] = ()
) -> None:
    """Draws error and loss over the steps, as in figure 6 of the paper, to a PNG.

    Args:
        rows: of metrics.csv, at least one.
        title: a line above the picture.
        path: where it goes.
        drop_steps: where the learning rate drops, marked by vertical lines.
    """
    write_whole(path, _png(rows, title, drop_steps))


@as_png
def _png(rows, title, drop_steps):
    picture = figure(figsize=(10, 4))
    picture.suptitle(title)
    error_axes, loss_axes = picture.subplots(1, 2)
    steps = [row.step for row in rows]
    train_error = [100 * (1 - row.train_accuracy) for row in rows]
    eval_error = [100 * (1 - row.eval_accuracy) for row in rows]
    style = {"markersize": 3, "marker": "o" if len(rows) < 40 else None}
    train_style = {"color": TRAIN_COLOR, "linestyle": "--", "label": "training", **style}
    eval_style = {"color": EVAL_COLOR, "label": "evaluation", **style}
    error_axes.plot(steps, train_error, **train_style)
    error_axes.plot(steps, eval_error, **eval_style)
    error_axes.set(xlabel="step", ylabel="error (%)", ylim=(0, None))
    error_axes.set_title(f"evaluation error {eval_error[-1]:.2f} % at the end", fontsize="medium")
    loss_axes.plot(steps, [row.train_loss for row in rows], **train_style)
    loss_axes.plot(steps, [row.eval_loss for row in rows], **eval_style)
    loss_axes.set(xlabel="step", ylabel="cross-entropy (nats)", yscale="log")
    for axes in (error_axes, loss_axes):
        for step in drop_steps:
            if step < steps[-1]:
                axes.axvline(step, color="0.7", linewidth=0.8, zorder=0)
        axes.grid(alpha=0.3)
        axes.legend()
    return picture
