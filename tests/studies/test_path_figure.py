"""The figure of path lengths, against the measurements and the binomial distribution."""

import dataclasses

import numpy as np
import pytest
from fake_measurements import drawn, legend_texts, path_lengths, read
from scipy.stats import binom

from keras_preact.studies import path_figure


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
    assert path_figure.holding_range(np.array(share)) == expected


def test_a_binomial_share_is_held_by_the_quantiles_of_its_distribution():
    share = binom.pmf(range(55), 54, 0.1)
    expected = binom.ppf([0.025, 0.975], 54, 0.1)
    assert path_figure.holding_range(share) == tuple(expected)


def test_paths_are_counted_on_a_log_scale_and_their_shares_are_bars():
    measured = path_lengths(60)
    figure = drawn(path_figure.draw, measured, "a title")
    upper, lower = figure.axes
    np.testing.assert_array_equal(upper.get_lines()[0].get_xdata(), range(61))
    np.testing.assert_array_equal(upper.get_lines()[0].get_ydata(), measured.paths)
    assert upper.get_yscale() == "log"
    bars = lower.containers[0].patches
    np.testing.assert_allclose([b.get_height() for b in bars], 100 * measured.share)
    np.testing.assert_allclose([b.get_x() + b.get_width() / 2 for b in bars], range(61), atol=1e-9)
    first, last = path_figure.holding_range(measured.share)
    assert legend_texts(figure) == [f"95 % of the gradient: length {first} to {last}"]
    (band,) = (p for p in lower.patches if p not in bars)
    np.testing.assert_allclose(
        [band.get_x(), band.get_x() + band.get_width()], [first - 0.5, last + 0.5]
    )


def test_all_333_units_fit_on_the_scale_of_paths():
    # The middle one of these binomial coefficients is 10^99.
    upper = drawn(path_figure.draw, path_lengths(333), "a title").axes[0]
    assert upper.get_ylim()[0] < 1 and 1e98 < upper.get_ylim()[1] < 1e100


def with_share(share):
    return dataclasses.replace(path_lengths(len(share) - 1), share=np.array(share))


def test_the_caption_tells_short_paths_from_those_of_a_typical_length():
    text = read(path_figure.caption(with_share(binom.pmf(range(55), 54, 0.1))))
    assert "so n=54 units make 254 paths" in text
    first, last = binom.ppf([0.025, 0.975], 54, 0.1)
    assert f"paths of length {first:g} to {last:g}, 5.4 in the mean" in text
    first, last = binom.ppf([0.025, 0.975], 54, 0.5)
    assert f"have length {first:g} to {last:g}, 27 in the mean" in text
    assert "Its paths are shorter than most, as Veit" in text
    text = read(path_figure.caption(with_share(binom.pmf(range(55), 54, 0.75))))
    assert "40.5 in the mean" in text
    assert "Its paths are not shorter than most, unlike what Veit" in text


def test_the_caption_counts_what_works_against_the_gradient():
    text = read(path_figure.caption(with_share([0.75, 0.5, -0.25])))
    assert "Parts below 0, -25 % in all, work against the others." in text
    assert "below 0" not in read(path_figure.caption(with_share([0.5, 0.5, 0])))


@pytest.mark.parametrize("share", [[0, 0], [np.nan, 1]])
def test_without_a_gradient_the_caption_says_so(share):
    assert "The gradient is 0 or not finite" in read(path_figure.caption(with_share(share)))
