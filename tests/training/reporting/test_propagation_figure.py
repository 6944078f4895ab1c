import inspect

import numpy as np
import pytest
from fake_measurements import backward, decoded, legend_texts, overlapping

from keras_preact.support.plotting import COLORS
from keras_preact.training.reporting import propagation_figure

LONG_TITLE = "ResNetV2 of 164 layers in the run $x^^{$, " + "a word and another " * 10


def drawn(measured, title="a title"):
    return inspect.unwrap(propagation_figure.gradient)(measured, title)


def only(**changed):
    """Measurements of 6 units, all of it ones, with some fields changed."""
    measured = backward(6)
    for field in ("gradient_norm", "shortcut_norm", "residual_norm", "cosine"):
        getattr(measured, field)[:] = changed.get(field, 1.0)
    return measured


@pytest.mark.parametrize("count", [1, 3, 60])
@pytest.mark.parametrize("kind", [{}, {"broken": True}, {"plain": True}])
def test_the_gradient_of_any_network_is_drawn_as_a_png(count, kind):
    png = propagation_figure.gradient(backward(count, **kind), LONG_TITLE)
    assert png.startswith(b"\x89PNG\r\n")
    assert decoded(png).shape[0] > 600
    # Only the first term is absent from a plain network.
    whole = [int(COLORS[0][i : i + 2], 16) / 255 for i in (1, 3, 5)]
    visible = (abs(decoded(png) - whole).max(axis=-1) < 0.01).sum()
    assert visible > 20


def test_the_lines_are_the_norms_by_the_number_of_the_unit():
    measured = backward(7)
    upper, lower = drawn(measured).axes
    lines = [*upper.get_lines()[:3], lower.get_lines()[0]]
    fields = ("gradient_norm", "shortcut_norm", "residual_norm", "cosine")
    for line, field in zip(lines, fields, strict=True):
        np.testing.assert_array_equal(line.get_xdata(), [1, 2, 3, 4, 5, 6, 7])
        np.testing.assert_array_equal(line.get_ydata(), getattr(measured, field))
    assert upper.get_yscale() == "log" and lower.get_yscale() == "linear"
    assert lower.get_ylim()[0] < -1 and lower.get_ylim()[1] > 1


def test_what_has_no_place_on_the_log_axis_is_left_out_and_counted_in_the_legend():
    shortcut = [0, 2, np.nan, np.inf, 0, -3]
    figure = drawn(only(shortcut_norm=shortcut, residual_norm=0.0))
    line = figure.axes[0].get_lines()[1]
    nan = np.nan
    np.testing.assert_array_equal(line.get_ydata(), [nan, 2, nan, nan, nan, nan])
    total, first, second = legend_texts(figure)
    assert not total.endswith(")")
    assert first.endswith("alone (not finite in 2 units, 0 in 2 units, below 0 in 1 unit)")
    assert second.endswith("functions (0)")


@pytest.mark.parametrize(
    "norms",
    [[1.0] * 6, [1, 1.1, 1, 1, 1, 1.2], [1e-20, 1, 1e-9, 1, 3, 1e-4], [1e-45, 1e38] * 3],
)
def test_the_log_axis_spans_a_decade_and_shows_30_at_most(norms):
    axes = drawn(only(gradient_norm=norms, shortcut_norm=norms, residual_norm=norms)).axes[0]
    low, high = axes.get_ylim()
    assert low < max(norms) < high
    decades = np.log10(high / low)
    assert 1 - 1e-9 <= decades <= 31.01
    if max(norms) / min(norms) < 1e30:
        assert low < min(norms)


def test_where_all_is_0_the_panels_say_so():
    measured = only(gradient_norm=0.0, shortcut_norm=0.0, residual_norm=0.0, cosine=np.nan)
    upper, lower = drawn(measured).axes
    assert "nothing above 0" in [text.get_text() for text in upper.texts]
    assert "one of the terms is 0" in [text.get_text() for text in lower.texts]


def test_stages_are_parted_by_lines_and_named_in_their_middle():
    measured = backward(40)
    measured.stages[:] = np.repeat([1, 2, 3, 4], [4, 20, 13, 3])
    for axes, names in zip(
        drawn(measured).axes, (["1", "stage 2", "stage 3", "4"], []), strict=True
    ):
        vertical = [line.get_xdata()[0] for line in axes.get_lines() if len(line.get_xdata()) == 2]
        assert [x for x in vertical if x > 0] == [4.5, 24.5, 37.5]
        assert [text.get_text() for text in axes.texts] == names
        middles = [text.xy[0] for text in axes.texts]
        assert middles == [2.5, 14.5, 31.0, 39.0][: len(names)]


@pytest.mark.parametrize("count", [1, 10, 60, 333])
def test_all_axes_are_labelled_and_no_text_covers_another(count):
    figure = drawn(backward(count), LONG_TITLE)
    upper, lower = figure.axes
    assert upper.get_ylabel() == "Euclidean norm of the gradient"
    assert lower.get_xlabel() == "residual unit, first to last"
    assert lower.get_ylabel()
    assert overlapping(figure) == []


def test_a_title_is_wrapped_and_its_dollar_signs_are_no_formula():
    figure = drawn(backward(3), LONG_TITLE)
    assert figure.get_suptitle().split() == LONG_TITLE.split()
    assert figure.get_suptitle().count("\n") >= 2


def test_small_ranges_have_plain_numbers_on_the_axis():
    figure = drawn(only(gradient_norm=[0.02, 0.1, 0.2, 0.3, 1.0, 2.0]))
    figure.draw_without_rendering()
    axis = figure.axes[0].yaxis
    shown = [t.get_text() for minor in (False, True) for t in axis.get_ticklabels(minor=minor)]
    assert {"0.02", "0.05", "0.1", "0.2", "0.5", "1", "2"} <= set(shown)
    assert not {"0.03", "0.3", "4"} & set(shown)
