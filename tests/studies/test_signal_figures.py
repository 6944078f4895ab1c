"""The figures of the signals, against the measurements and closed forms."""

import numpy as np
import pytest
from fake_measurements import drawn, forward, legend_texts, read

from keras_preact.studies import signal_figures


def test_the_signals_are_five_lines_of_variance_mean_and_zeros():
    measured = forward(6)
    panels = drawn(signal_figures.draw_signals, measured, "a title").axes
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
    panels = drawn(signal_figures.draw_signals, measured, "a title").axes
    assert [axes.get_yscale() for axes in panels] == [scale, "linear", "linear"]


def test_exact_zeros_of_the_sum_error_stand_at_0_below_the_band_of_rounding():
    measured = forward(4)
    measured.sum_error[:] = [0, 5e-8, 2e-3, 7]
    measured.sum_error_of_f[:] = 0
    figure = drawn(signal_figures.draw_sum_error, measured, "a title")
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
    axes = drawn(signal_figures.draw_truncation, measured, "a title").axes[0]
    np.testing.assert_array_equal(axes.get_lines()[0].get_ydata(), [25, 50, 0])
    assert axes.get_ylim()[0] < 0 and 50 < axes.get_ylim()[1] < 60


def four_units(**changed):
    """Measurements of two stages of two units, with some fields changed."""
    measured = forward(4)
    measured.stages[:] = [1, 1, 2, 2]
    for field, values in changed.items():
        getattr(measured, field)[:] = values
    return measured


@pytest.mark.parametrize(
    ("variance", "output", "sentence"),
    [
        ([1, 2, 3, 4], [2, 6, 4, 3.3], "in stage 1: from 1 to 6."),
        ([1, 2, 40, 1], [2, 6, 2, 0.4], "in stage 2: from 40 to 0.4."),
        ([0, 2, 40, 1], [2, 6, 2, 0.4], "in stage 2: from 40 to 0.4."),
    ],
)
def test_the_caption_of_the_signals_says_which_stage_changes_the_variance(
    variance, output, sentence
):
    measured = four_units(variance=variance, zero_fraction=[0.5, 0.1, 0.25, 0.25])
    measured.output.variance[:] = output
    text = read(signal_figures.signals_caption(measured))
    assert f"is {variance[0]} in the first unit and {output[-1]} behind the last one" in text
    assert sentence in text
    assert "Zeros make up between 10 % (stage1_unit2) and 50 % (stage1_unit1) of x" in text
    measured.stages[:] = 1
    assert "stage 1: from" not in read(signal_figures.signals_caption(measured))


def test_where_equation_4_holds_to_rounding_a_sentence_says_so():
    measured = four_units(sum_error=[0, 2.5e-7, 1e-8, 0], sum_error_of_f=0, sum_error_of_h=0)
    found = by_name(signal_figures.figures(measured, "a net"))["sum_error"]
    assert found.png is None
    assert "Equation (4) holds: its two sides differ by 2.5x10" in read(found.caption)


@pytest.mark.parametrize(
    ("of_f", "of_h"),
    [([0, 0.5, 0, 0], [0] * 4), ([0] * 4, [0, 0, 2, 3e-6]), ([np.nan] * 4, [0] * 4)],
)
def test_where_equation_4_is_broken_the_caption_says_by_what(of_f, of_h):
    errors = np.maximum(np.nan_to_num(of_f, nan=0.25), of_h)
    measured = four_units(sum_error=errors, sum_error_of_f=of_f, sum_error_of_h=of_h)
    text = read(signal_figures.sum_error_caption(measured))
    assert "Equation (4) does not hold." in text
    if of_h[2]:
        assert "is 2 (stage2_unit3); the part due to f is 0 at most" in text
        assert "the part due to h is 2 (stage2_unit3)." in text
    elif np.isnan(of_f[0]):
        assert "the part due to f is not finite at most" in text
    else:
        assert "is 0.5 (stage1_unit2); the part due to f is 0.5 (stage1_unit2) at most" in text
        assert "the part due to h is 0." in text


def by_name(figures):
    return {figure.name: figure for figure in figures}


@pytest.mark.parametrize(
    ("fractions", "sentence"),
    [
        ([0, 0, 0, 0], "f zeroes no element of any sum y"),
        ([0.25] * 4, "f zeroes 25 % of the sum yl in every unit."),
        (
            [0.1, 0.5, 0.3, 0.1],
            "f zeroes between 10 % (stage1_unit1) and 50 % (stage1_unit2) of the elements of the "
            "sum yl, 25 % in the mean over the units.",
        ),
    ],
)
def test_the_caption_of_truncation_counts_what_f_zeroes(fractions, sentence):
    measured = four_units(truncated_fraction=fractions)
    found = by_name(signal_figures.figures(measured, "a net"))["truncation"]
    assert sentence in read(found.caption)
    # A level line would be drawn for nothing.
    assert (found.png is None) == (len(set(fractions)) == 1)
