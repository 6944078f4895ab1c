import inspect

import numpy as np
import pytest
from fake_measurements import (
    backward,
    decoded,
    forward,
    initialisation,
    lesions,
    names,
    overlapping,
    path_lengths,
    values,
)

from keras_preact.studies import initialisation_plot, plots, study_plots

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


# Each picture's function and what it is given for a number of units.
PICTURES = {
    "signals": (plots.signals, lambda n, broken: (forward(n, broken), LONG_TITLE)),
    "sum_error": (plots.sum_error, lambda n, broken: (forward(n, broken), LONG_TITLE)),
    "truncation": (plots.truncation, lambda n, broken: (forward(n, broken), LONG_TITLE)),
    "shortcut_product": (
        plots.shortcut_product,
        lambda n, broken: (backward(n, broken), LONG_TITLE),
    ),
    "factors": (plots.factors, lambda n, broken: (backward(n, broken), LONG_TITLE)),
    "gradients_beside": (
        plots.gradients_beside,
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
        initialisation_plot.initialisation,
        lambda n, broken: (several(n, broken), LONG_TITLE),
    ),
    "one initialisation": (
        initialisation_plot.initialisation,
        lambda n, broken: ([initialisation("identity", 20, n, broken)], LONG_TITLE),
    ),
    "lesions": (study_plots.lesions, lambda n, broken: (lesions(n, broken), LONG_TITLE, 0.1)),
    "path_lengths": (
        study_plots.path_lengths,
        lambda n, broken: (path_lengths(n, broken), LONG_TITLE),
    ),
    "over_training": (study_plots.over_training, lambda n, broken: by_step(n, broken, True)),
    "over_training, linear": (
        study_plots.over_training,
        lambda n, broken: by_step(n, broken, False),
    ),
}


def drawn(function, *args):
    """The figure that the function makes a PNG of."""
    return inspect.unwrap(function)(*args)


def legend_texts(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


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


def test_the_signals_are_five_lines_of_variance_mean_and_zeros():
    measured = forward(6)
    panels = drawn(plots.signals, measured, "a title").axes
    signals = (measured, measured.shortcut, measured.residual, measured.sum, measured.output)
    for axes, field, scale in zip(
        panels, ("variance", "mean", "zero_fraction"), (1, 1, 100), strict=True
    ):
        for line, signal in zip(axes.get_lines()[:5], signals, strict=True):
            np.testing.assert_array_equal(line.get_xdata(), range(1, 7))
            np.testing.assert_allclose(line.get_ydata(), scale * getattr(signal, field))


@pytest.mark.parametrize(("highest", "scale"), [(9.9, "linear"), (10.1, "log")])
def test_the_variance_has_a_log_scale_beyond_a_factor_of_10(highest, scale):
    measured = forward(6)
    signals = (measured, measured.shortcut, measured.residual, measured.sum, measured.output)
    for signal in signals:
        signal.variance[:] = 1
    measured.sum.variance[3] = highest
    # Signals of nothing but zeros have no part in this.
    measured.residual.variance[0] = 0
    panels = drawn(plots.signals, measured, "a title").axes
    assert [axes.get_yscale() for axes in panels] == [scale, "linear", "linear"]


def test_exact_zeros_of_the_sum_error_stand_at_0_below_the_band_of_rounding():
    measured = forward(4)
    measured.sum_error[:] = [0, 5e-8, 2e-3, 7]
    measured.sum_error_of_f[:] = 0
    figure = drawn(plots.sum_error, measured, "a title")
    axes = figure.axes[0]
    shown = axes.get_lines()[:3]
    np.testing.assert_array_equal(shown[0].get_ydata(), [0, 5e-8, 2e-3, 7])
    np.testing.assert_array_equal(shown[1].get_ydata(), [0, 0, 0, 0])
    np.testing.assert_array_equal(shown[2].get_ydata(), measured.sum_error_of_h)
    heights = axes.transData.transform([(1, y) for y in (0, 1e-9, 5e-8, 1e-6, 2e-3, 7)])[:, 1]
    assert (np.diff(heights) > 1).all()
    low, high = axes.get_ylim()
    assert low < 0 and high > 7
    band = axes.patches[0].get_extents().transformed(axes.transData.inverted())
    np.testing.assert_allclose([band.y0, band.y1], [0, 1e-6], atol=1e-12)
    assert legend_texts(figure)[-1] == "float32 rounding"


def test_truncation_is_in_percent_and_fills_the_panel():
    measured = forward(3)
    measured.truncated_fraction[:] = [0.25, 0.5, 0]
    axes = drawn(plots.truncation, measured, "a title").axes[0]
    np.testing.assert_array_equal(axes.get_lines()[0].get_ydata(), [25, 50, 0])
    assert axes.get_ylim()[0] < 0 and 50 < axes.get_ylim()[1] < 60


def test_the_product_stands_beside_gradients_relative_to_the_last_one():
    measured = backward(5)
    figure = drawn(plots.shortcut_product, measured, "a title")
    whole, product, first = figure.axes[0].get_lines()[:3]
    np.testing.assert_allclose(whole.get_ydata(), 4 * measured.gradient_norm)
    np.testing.assert_array_equal(product.get_ydata(), measured.shortcut_product)
    np.testing.assert_allclose(first.get_ydata(), 4 * measured.shortcut_norm)
    assert product.get_linestyle() == "--" and whole.get_linestyle() == "-"
    assert "equation (8)" in legend_texts(figure)[1]


def test_factors_are_histograms_of_each_unit_in_percent():
    measured = backward(3)
    # Of 51 bins from 0 to 1, the first, the middle one and the last.
    measured.factor_values[0][:] = 0
    measured.factor_values[1][:] = np.repeat([0.5, 1], [75, 25])
    measured.factor_values[2][:] = np.repeat([np.nan, 0.5], [60, 40])
    measured.shortcut_factor[:] = [0, 0.625, 0.5]
    axes = drawn(plots.factors, measured, "a title").axes[0]
    cells = axes.collections[0].get_array()
    expected = np.zeros((51, 3))
    expected[0, 0], expected[[25, 50], 1], expected[25, 2] = 100, [75, 25], 100
    np.testing.assert_allclose(cells.filled(0), expected)
    corners = axes.collections[0].get_coordinates()
    np.testing.assert_allclose(corners[0, :, 0], [0.5, 1.5, 2.5, 3.5])
    np.testing.assert_allclose(corners[:, 0, 1], np.linspace(0, 1, 52))
    np.testing.assert_array_equal(axes.get_lines()[0].get_ydata(), [0, 0.625, 0.5])


def test_constant_factors_lie_in_the_middle_of_the_panel():
    measured = backward(3)
    for of_unit in (*measured.factor_values, measured.shortcut_factor):
        of_unit[:] = 1
    axes = drawn(plots.factors, measured, "a title").axes[0]
    cells = axes.collections[0].get_array()
    assert cells[25].tolist() == [100] * 3 and cells.count() == 3
    np.testing.assert_allclose(np.mean(axes.get_ylim()), 1)


def test_networks_beside_each_other_have_one_scale_that_holds_them_all():
    named = [(str(n), backward(4)) for n in range(4)]
    named[2][1].gradient_norm[1] = 50
    named[3][1].shortcut_norm[:] = 0
    figure = drawn(plots.gradients_beside, named, "a title")
    assert len(figure.axes) == 4
    for axes, (_, measured) in zip(figure.axes, named, strict=True):
        assert axes.get_ylim() == figure.axes[0].get_ylim()
        for line, norms in zip(
            axes.get_lines()[:3],
            (measured.gradient_norm, measured.shortcut_norm, measured.residual_norm),
            strict=True,
        ):
            np.testing.assert_array_equal(line.get_ydata(), np.where(norms > 0, norms, np.nan))
    low, high = figure.axes[0].get_ylim()
    everything = np.concatenate([m.gradient_norm for _, m in named])
    assert low < everything.min() and high > 50
    titles = [axes.get_title() for axes in figure.axes]
    assert titles == ["0", "1", "2", "3\n(nothing through shortcuts alone)"]
