"""Draws the residual units from the table of activation orders: docs/units.png.

python docs/draw_units.py
"""

import pathlib
import sys

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from keras_preact.layers import ORDERS, ActivationOrder, UnitKind  # noqa: E402

# Okabe and Ito's palette, which the colour-blind can tell apart.
COLORS = {"conv": "#56B4E9", "bn": "#F0E442", "relu": "#E69F00"}
LABELS = {"conv": "weight", "bn": "BN", "relu": "ReLU"}
STEP, HALF_WIDTH, HALF_HEIGHT, SHORTCUT_X = 1.0, 0.75, 0.3, -1.5
TOP = 0.0


def draw_unit(axes, order: ActivationOrder, title: str) -> None:
    """One basic unit from top to bottom, its shortcut on the left."""
    plan = UnitKind("basic", order).plan(input_channels=16, filters=16)
    y = TOP
    axes.text(0, y + 0.35, r"$x_l$", ha="center", va="bottom", fontsize=13)
    axes.plot([0, 0], [y + 0.3, y - STEP], color="black", linewidth=1.2, zorder=0)
    split = y
    y -= STEP
    for operation in plan.preactivation + plan.residual:
        draw_operation(axes, operation.kind, y)
        y -= STEP
    addition = y
    axes.plot([0, 0], [split, addition], color="black", linewidth=1.2, zorder=0)
    axes.plot(
        [0, SHORTCUT_X, SHORTCUT_X, -0.22],
        [split, split, addition, addition],
        color="0.45",
        linewidth=4,
        zorder=0,
        solid_joinstyle="round",
    )
    axes.add_patch(circle(addition))
    axes.text(0, addition, "+", ha="center", va="center", fontsize=14)
    for operation in plan.after_addition:
        y -= STEP
        draw_operation(axes, operation.kind, y)
    end = y - STEP
    axes.annotate(
        "",
        (0, end),
        (0, addition - 0.22),
        arrowprops={"arrowstyle": "-|>", "color": "black"},
        zorder=0,
    )
    axes.text(0, end - 0.05, r"$x_{l+1}$", ha="center", va="top", fontsize=13)
    axes.set_title(title, fontsize=11)


def circle(y):
    return FancyBboxPatch(
        (-0.02, y - 0.02), 0.04, 0.04, boxstyle="circle,pad=0.2", facecolor="white", zorder=2
    )


def draw_operation(axes, kind: str, y: float) -> None:
    """One box; convolutions, BN and ReLU differ in colour and in text."""
    axes.add_patch(
        FancyBboxPatch(
            (-HALF_WIDTH, y - HALF_HEIGHT),
            2 * HALF_WIDTH,
            2 * HALF_HEIGHT,
            boxstyle="round,pad=0.02,rounding_size=0.12",
            facecolor=COLORS[kind],
            edgecolor="black",
            linewidth=0.8,
            zorder=1,
        )
    )
    axes.text(0, y, LABELS[kind], ha="center", va="center", fontsize=11)


def main() -> None:
    figure = Figure(figsize=(11, 5), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, (name, order) in zip(figure.subplots(1, len(ORDERS)), ORDERS.items(), strict=True):
        draw_unit(axes, order, name)
        axes.set(xlim=(-2, 1.2), ylim=(-8.7, 0.9), aspect="equal")
        axes.axis("off")
    figure.savefig(ROOT / "docs" / "units.png", dpi=110)


if __name__ == "__main__":
    main()
