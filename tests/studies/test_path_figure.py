import inspect

import numpy as np
import pytest
from fake_measurements import lesions, names, path_lengths
from scipy.stats import binom

from keras_preact.studies import study_plots


def drawn(function, *args):
    """The figure that the function makes a PNG of."""
    return inspect.unwrap(function)(*args)


def legend_texts(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


def test_lesions_are_in_percent_with_swaps_midway_between_their_units():
    measured = lesions(6)
    measured.deleted_accuracy[2] = np.nan
    measured.swapped[:] = [[0, 5], [2, 3]]
    figure = drawn(study_plots.lesions, measured, "a title", 0.1)
    deleted, swapped, unchanged, chance = figure.axes[0].get_lines()
    np.testing.assert_array_equal(deleted.get_xdata(), range(1, 7))
    np.testing.assert_array_equal(deleted.get_ydata(), 100 * measured.deleted_accuracy)
    np.testing.assert_array_equal(swapped.get_xdata(), [3.5, 3.5])
    np.testing.assert_array_equal(swapped.get_ydata(), 100 * measured.swapped_accuracy)
    assert unchanged.get_ydata()[0] == 90 and chance.get_ydata()[0] == 10
    assert legend_texts(figure)[2:] == ["unchanged: 90.00 %", "chance: 10 %"]
    without = drawn(study_plots.lesions, measured, "a title", None)
    assert len(without.axes[0].get_lines()) == 3


@pytest.mark.parametrize(
    ("share", "expected"),
    [
        ([0.01, 0.03, 0.92, 0.03, 0.01], (1, 3)),
        ([0.02, 0.96, 0.02], (1, 1)),
        ([0.5, 0.5], (0, 1)),
        # By magnitude 10 : 1 : 10.
        ([10, 1, -10], (0, 2)),
        ([0, 0, 1, 0], (2, 2)),
        ([1.0], (0, 0)),
        ([0, 0], None),
        ([0.5, np.nan], None),
        ([np.inf, 1], None),
    ],
)
def test_the_range_that_holds_95_percent_leaves_equal_tails(share, expected):
    assert study_plots.holding_range(np.array(share)) == expected


def test_a_binomial_share_is_held_by_the_quantiles_of_its_distribution():
    share = binom.pmf(range(55), 54, 0.1)
    expected = binom.ppf([0.025, 0.975], 54, 0.1)
    assert study_plots.holding_range(share) == tuple(expected)


def test_paths_are_counted_on_a_log_scale_and_their_shares_are_bars():
    measured = path_lengths(60)
    figure = drawn(study_plots.path_lengths, measured, "a title")
    upper, lower = figure.axes
    np.testing.assert_array_equal(upper.get_lines()[0].get_xdata(), range(61))
    np.testing.assert_array_equal(upper.get_lines()[0].get_ydata(), measured.paths)
    assert upper.get_yscale() == "log"
    bars = lower.containers[0].patches
    np.testing.assert_allclose([b.get_height() for b in bars], 100 * measured.share)
    np.testing.assert_allclose([b.get_x() + b.get_width() / 2 for b in bars], range(61), atol=1e-9)
    first, last = study_plots.holding_range(measured.share)
    assert legend_texts(figure) == [f"95 % of the gradient: length {first} to {last}"]
    (band,) = (p for p in lower.patches if p not in bars)
    np.testing.assert_allclose(
        [band.get_x(), band.get_x() + band.get_width()], [first - 0.5, last + 0.5]
    )


def test_all_333_units_fit_on_the_scale_of_paths():
    # The middle one of these binomial coefficients is 10^99.
    upper = drawn(study_plots.path_lengths, path_lengths(333), "a title").axes[0]
    assert upper.get_ylim()[0] < 1 and 1e98 < upper.get_ylim()[1] < 1e100


@pytest.mark.parametrize("log", [False, True])
def test_over_training_has_a_column_for_each_step_and_the_first_unit_at_the_bottom(log):
    cells = np.array([[1, 2, 0], [3, np.nan, 4.0]])
    figure = drawn(
        study_plots.over_training, np.array([10, 20]), names(3), cells, "norm", "a title", log
    )
    axes, bar = figure.axes
    mesh = axes.collections[0]
    expected = np.ma.masked_invalid(cells.T)
    if log:
        expected[2, 0] = np.ma.masked
    shown = mesh.get_array()
    np.testing.assert_array_equal(shown.mask, expected.mask)
    np.testing.assert_array_equal(shown.filled(-1), expected.filled(-1))
    corners = mesh.get_coordinates()
    np.testing.assert_allclose(corners[0, :, 0], [5, 15, 25])
    np.testing.assert_allclose(corners[:, 0, 1], [0.5, 1.5, 2.5, 3.5])
    assert not axes.yaxis_inverted()
    assert [t.get_text() for t in axes.get_yticklabels()] == list(names(3))
    assert bar.get_ylabel() == "norm"
    assert mesh.norm.vmax == 4 and mesh.norm.vmin == (1 if log else 0)


@pytest.mark.parametrize("step", [0, 64_000])
def test_a_single_step_is_a_column_around_it(step):
    figure = drawn(
        study_plots.over_training, np.array([step]), names(2), np.ones((1, 2)), "", "", True
    )
    axes = figure.axes[0]
    low, high = axes.get_xlim()
    assert 0 <= low <= step < high
    figure.draw_without_rendering()
    ticks = [t.get_text() for t in axes.get_xticklabels()]
    assert str(step) in ticks
