"""Sampling error of a loss of accuracy, against enumerations of all outcomes."""

import math

import numpy as np
import pytest

from keras_preact.exporting.checks.sampling_error import (
    happens_more,
    loses_more,
    loss_interval,
)


def outcomes(images):
    """All numbers of lost and of gained answers."""
    return [(lost, gained) for lost in range(images + 1) for gained in range(images + 1 - lost)]


def probability(images, counts, shares):
    """The trinomial probability of lost and gained answers, by its definition."""
    (lost, gained), (share_lost, share_gained) = counts, shares
    ways = math.comb(images, lost) * math.comb(images - lost, gained)
    same = max(0.0, 1 - share_lost - share_gained)
    return ways * share_lost**lost * share_gained**gained * same ** (images - lost - gained)


def binomial_tail(images, count, share):
    return sum(
        math.comb(images, k) * share**k * (1 - share) ** (images - k)
        for k in range(count, images + 1)
    )


@pytest.mark.parametrize(
    ("images", "lost", "gained", "points", "fails"),
    [
        *((200, 3, 0, 1, False), (200, 40, 0, 1, True), (10_000, 150, 0, 1, True)),
        *((20, 20, 0, 1, True), (50_000, 600, 100, 1, False), (50_000, 700, 100, 1, True)),
        # The same difference is worth less where more answers change.
        *((1000, 10, 0, 0, True), (1000, 110, 100, 0, False), (1000, 150, 100, 0, True)),
        # A point of 5 images is less than one: three of them may be chance, four not.
        *((5, 3, 0, 1, False), (5, 4, 0, 1, True), (4, 4, 0, 1, False), (1, 1, 0, 0, False)),
        *((1000, 3, 0, 0, False), (1000, 4, 0, 0, True), (1000, 0, 900, 0, False)),
        *((200, 200, 0, 100, False), (200, 200, 0, 1000, False), (200, 200, 0, 99, False)),
    ],
)
def test_a_loss_is_one_where_chance_does_not_explain_it(images, lost, gained, points, fails):
    assert loses_more(images, lost, gained, points / 100) == fails


@pytest.mark.parametrize("images", [1, 5, 200, 10_000])
@pytest.mark.parametrize("allowed", [0, 0.01, 0.5, 1])
def test_where_no_answer_has_changed_nothing_is_lost(images, allowed):
    assert not loses_more(images, 0, 0, allowed)
    assert not loses_more(images, 0, images, allowed)


@pytest.mark.parametrize("images", [5, 12, 25])
@pytest.mark.parametrize(("allowed", "most"), [(0, 5), (0.01, 5), (0.05, 5), (0.3, 5.3)])
def test_a_file_that_loses_what_is_allowed_fails_five_times_in_a_hundred(images, allowed, most):
    failing = [counts for counts in outcomes(images) if loses_more(images, *counts, allowed)]
    assert (images, 0) in failing or images == 5
    for share_gained in np.linspace(0, (1 - allowed) / 2, 41):
        shares = (share_gained + allowed, share_gained)
        assert sum(probability(images, counts, shares) for counts in failing) <= most / 100


@pytest.mark.parametrize(("images", "allowed"), [(12, 0.05), (25, 0)])
def test_a_file_fails_where_a_difference_as_large_is_unlikely_if_it_loses_what_is_allowed(
    images, allowed
):
    grid = np.linspace(0, (1 - allowed) / 2, 2001)
    for lost, gained in outcomes(images):
        likelihood = [
            probability(images, (lost, gained), (share + allowed, share)) for share in grid
        ]
        share = grid[np.argmax(likelihood)]
        p_value = sum(
            probability(images, (b, c), (share + allowed, share))
            for b, c in outcomes(images)
            if b - c >= lost - gained
        )
        if abs(p_value - 0.05) > 1e-3:  # the grid is not finer
            assert loses_more(images, lost, gained, allowed) == (p_value < 0.05)


def test_the_interval_has_the_allowed_losses_that_do_not_fail():
    rng = np.random.default_rng(0)
    for _ in range(40):
        images = int(rng.integers(1, 400))
        lost = int(rng.integers(0, images + 1))
        gained = int(rng.integers(0, images - lost + 1))
        low, high = loss_interval(images, lost, gained)
        assert low <= (lost - gained) / images <= high
        if low > 1e-5:
            assert loses_more(images, lost, gained, low - 1e-5)
        assert not loses_more(images, lost, gained, max(low, 0) + 1e-5)
        mirrored = loss_interval(images, gained, lost)
        assert mirrored == pytest.approx((-high, -low), abs=1e-9)


def test_the_interval_holds_the_true_loss_nine_times_in_ten():
    images = 25
    intervals = {counts: loss_interval(images, *counts) for counts in outcomes(images)}
    for share_lost, share_gained in ((0.02, 0.0), (0.1, 0.05), (0.3, 0.3), (0.05, 0.4)):
        held = sum(
            probability(images, counts, (share_lost, share_gained))
            for counts, (low, high) in intervals.items()
            if low <= share_lost - share_gained <= high
        )
        assert held >= 0.9


def test_without_a_change_the_interval_is_that_of_the_rule_of_three():
    # A share that is observed 0 times in n is below x with 95 % confidence: (1 - x)^n = 0.05.
    low, high = loss_interval(100, 0, 0)
    assert high == -low == pytest.approx(1 - 0.05 ** (1 / 100), abs=2e-6)


@pytest.mark.parametrize("images", [3, 20, 300])
def test_a_share_is_larger_than_allowed_where_the_binomial_tail_is_small(images):
    for allowed in (0.005, 0.01, 0.1, 0.5):
        for count in range(0, images + 1, max(1, images // 40)):
            expected = binomial_tail(images, count, allowed) <= 0.05
            assert happens_more(images, count, allowed) == expected
    assert not happens_more(images, 0, 0)
    assert happens_more(images, 1, 0)
