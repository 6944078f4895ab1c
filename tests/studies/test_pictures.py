import numpy as np
import pytest
from fake_measurements import (
    backward,
    decoded,
    drawn,
    forward,
    initialisation,
    lesions,
    names,
    overlapping,
    path_lengths,
    values,
)

from keras_preact.studies import (
    gradient_figures,
    lesion,
    path_figure,
    signal_figures,
    training_figures,
)
from keras_preact.studies import initialisation as initialisation_study

LONG_TITLE = "ResNetV2 of 164 layers in the run $x^^{$, " + "a word and another " * 10


def several(count, broken):
    return [
        initialisation("identity", 3 * count + 2, count, broken),
        initialisation("not a $formula^^{$", 3 * count + 2, count, broken, seed=5),
        initialisation("not a $formula^^{$", 3 * count + 8, count + 2, seed=9),
    ]


def by_step(count, broken, log):
    cells = np.stack([values(count, broken, seed) for seed in range(4)])
    label = "not a $formula^^{$"
    return np.array([0, 10, 20, 40]), names(count), cells, label, LONG_TITLE, log


# The function that draws each picture, and its arguments for a number of units.
PICTURES = {
    "signals": (signal_figures.draw_signals, lambda n, broken: (forward(n, broken), LONG_TITLE)),
    "sum_error": (
        signal_figures.draw_sum_error,
        lambda n, broken: (forward(n, broken), LONG_TITLE),
    ),
    "truncation": (
        signal_figures.draw_truncation,
        lambda n, broken: (forward(n, broken), LONG_TITLE),
    ),
    "shortcut_product": (
        gradient_figures.draw_shortcut_product,
        lambda n, broken: (backward(n, broken), LONG_TITLE),
    ),
    "factors": (gradient_figures.draw_factors, lambda n, broken: (backward(n, broken), LONG_TITLE)),
    "gradients_beside": (
        gradient_figures.draw_beside,
        lambda n, broken: (
            [
                ("one", backward(n, broken)),
                ("a plain network, " * 8, backward(n, plain=True)),
                ("not a $formula^^{$", backward(n + 1)),
                ("four", backward(n)),
            ],
            LONG_TITLE,
        ),
    ),
    "initialisation": (
        initialisation_study.draw,
        lambda n, broken: (several(n, broken), LONG_TITLE),
    ),
    "one initialisation": (
        initialisation_study.draw,
        lambda n, broken: ([initialisation("identity", 20, n, broken)], LONG_TITLE),
    ),
    "lesions": (lesion.draw, lambda n, broken: (lesions(n, broken), LONG_TITLE, 0.1)),
    "path_lengths": (
        path_figure.draw,
        lambda n, broken: (path_lengths(n, broken), LONG_TITLE),
    ),
    "over_training": (training_figures.draw, lambda n, broken: by_step(n, broken, True)),
    "over_training, linear": (
        training_figures.draw,
        lambda n, broken: by_step(n, broken, False),
    ),
}


@pytest.mark.parametrize("count", [1, 60])
@pytest.mark.parametrize("name", PICTURES)
@pytest.mark.filterwarnings("error")
def test_zeros_and_what_is_not_finite_can_be_drawn(name, count):
    function, arguments = PICTURES[name]
    png = function(*arguments(count, True))
    assert png.startswith(b"\x89PNG\r\n")
    pixels = decoded(png)
    assert pixels.shape[0] > 400 and pixels.shape[1] > 1000
    assert pixels.std() > 0.05


@pytest.mark.parametrize("count", [10, 333])
@pytest.mark.parametrize("name", PICTURES)
def test_all_axes_are_labelled_and_no_text_covers_another(name, count):
    function, arguments = PICTURES[name]
    figure = drawn(function, *arguments(count, False))
    assert overlapping(figure) == []
    for axes in figure.axes:
        columns, rows = axes.get_shared_x_axes(), axes.get_shared_y_axes()
        assert any(other.get_ylabel() for other in rows.get_siblings(axes))
        if axes.get_label() != "<colorbar>":
            assert any(other.get_xlabel() for other in columns.get_siblings(axes))
