"""Claims beside measured errors, with results made by hand."""

import math

import pytest

from keras_preact.experiments.rankings import EQUAL, OPEN, REVERSED, SAME, sentences, verdicts
from keras_preact.experiments.rankings import correlation as correlation_of
from keras_preact.experiments.results import RowResult, SeedResult
from keras_preact.experiments.table import Claim, Published, Row, Table


def table(published, claims=()):
    """Rows a, b, c ... of one column."""
    rows = tuple(
        Row(name, name, "column", {}, None if error is None else Published(error or None, "there"))
        for name, error in zip("abcdefgh", published, strict=False)
    )
    return Table("name", "title", "source", rows, tuple(Claim(*claim) for claim in claims))


def results(made, measured):
    """Results of rows; a number is a finished run, a word the state of another."""
    return [
        RowResult(
            row,
            None,
            tuple(
                SeedResult(seed, None, value)
                if isinstance(value, str)
                else SeedResult(seed, None, "finished", test_error=value)
                for seed, value in enumerate(values)
            ),
        )
        for row, values in zip(made.rows, measured, strict=True)
    ]


def judged(published, measured, claims=()):
    made = table(published, claims)
    return verdicts(made, results(made, measured))


def test_the_order_of_medians_decides_and_the_test_tells_how_surely():
    [verdict] = judged([6, 7], [[0.1, 0.2, 0.3], [0.4, 0.5, 0.6]])
    assert (verdict.order, verdict.p, verdict.is_clear) == (SAME, 0.05, True)
    [verdict] = judged([7, 6], [[0.1, 0.2, 0.3], [0.4, 0.5, 0.6]])
    assert (verdict.order, verdict.p, verdict.reverse_p) == (REVERSED, 1, 0.05)
    [verdict] = judged([6, 7], [[0.1, 0.2, 0.5], [0.4, 0.3, 0.6]])
    assert verdict.order == SAME and not verdict.is_clear


def test_runs_that_diverged_rank_last():
    [verdict] = judged([6, 0], [[0.9, 0.9, 0.9], ["diverged"] * 3])
    assert (verdict.order, verdict.p, verdict.runs) == (SAME, 0.05, (3, 3))
    assert verdict.medians == (0.9, math.inf)
    [verdict] = judged([6, 7], [["diverged"] * 2, ["diverged"] * 3])
    assert verdict.order == EQUAL


def test_runs_that_failed_or_go_on_are_no_result():
    [verdict] = judged([6, 7], [["failed", "unfinished", "missing", "damaged"], [0.1] * 4])
    assert (verdict.order, verdict.runs, verdict.p) == (OPEN, (0, 4), None)


@pytest.mark.parametrize("sizes", [(1, 1), (1, 5), (2, 3)])
def test_too_few_runs_have_an_order_but_no_test(sizes):
    better, worse = ([value] * size for value, size in zip((0.1, 0.2), sizes, strict=True))
    [verdict] = judged([6, 7], [better, worse])
    assert (verdict.order, verdict.p, verdict.corrected_p) == (SAME, None, None)


def test_a_pair_with_two_claims_is_judged_once():
    [verdict] = judged([6, 7], [[0.1], [0.2]], [("a", "b", "Figure 1")])
    assert verdict.claim.where == "Figure 1; there"


def test_sentences_count_orders_tests_and_corrected_tests():
    five = [[0.01 * (10 * row + n) for n in range(5)] for row in range(3)]
    first, second, third = sentences(judged([6, 7, 8], five), "the paper")
    assert first == "Of 3 rankings of the paper, 3 have the same order here and 0 are reversed."
    assert "3 have p \N{LESS-THAN OR EQUAL TO} 0.05 each on its own" in second
    # Each has 1/252; times 3 it stays below 0.05.
    assert "and 3 after Holm's correction for 3 tested rankings" in second
    assert third == "With 5 runs against 5 the lowest possible p is 0.004."


def test_sentences_say_that_three_runs_cannot_pass_a_correction():
    three = [[0.1, 0.11, 0.12], [0.2, 0.21, 0.22], [0.3, 0.31, 0.32]]
    *_, last = sentences(judged([6, 7, 8], three), "the paper")
    assert last == (
        "With 3 runs against 3 the lowest possible p is 0.05, so that after a correction for 3 "
        "rankings none could pass."
    )


def test_sentences_say_that_single_runs_give_no_confidence():
    first, second = sentences(judged([6, 7, 8], [[0.2], [0.1], ["missing"]]), "the table")
    assert first == (
        "Of 3 rankings of the table, 0 have the same order here, 1 is reversed and 2 are "
        "undecided, as a row has no run that has ended."
    )
    assert second == "All have one run each: no confidence."


def test_sentences_on_nothing():
    assert sentences([], "the table") == ["There are no two rows that the table ranks."]


def test_the_correlation_needs_four_rows_with_both_figures():
    made = table([6, 7, 8, 0, None])
    found = results(made, [[0.1], [0.2], [0.3], ["diverged"], [0.5]])
    assert correlation_of(found) == (pytest.approx(1), pytest.approx(1 / 24), 4)
    assert correlation_of(found[:3]) is None
