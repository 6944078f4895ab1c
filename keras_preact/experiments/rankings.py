"""The claims of a table beside the measured errors: which rows are in the same order here."""

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence

from keras_preact.experiments.results import RowResult
from keras_preact.experiments.statistics import (
    LEVEL,
    holm,
    kendall,
    least_p,
    median,
    p_lower,
)
from keras_preact.experiments.table import Claim, Row, Table

SAME, REVERSED, EQUAL, OPEN = "same", "reversed", "equal", "open"
# A rank correlation of fewer rows is hardly a number.
FEWEST_ROWS = 4


@dataclasses.dataclass(frozen=True)
class Verdict:
    """A claim and the measured order.

    Args:
        claim: of the table.
        order: `SAME`, `REVERSED`, `EQUAL` for equal medians, or `OPEN` where a row has no result.
        medians: test errors of the better and the worse row, 0 to 1; infinite where half of the
            runs diverged, NaN without a run.
        runs: their numbers.
        p: of the exact Mann-Whitney test, one-sided, in the direction of the claim; None if no
            outcome of so few runs could reach `LEVEL`.
        reverse_p: in the other direction.
        corrected_p: of all claims together, by Holm's method.
    """

    claim: Claim
    order: str
    medians: tuple[float, float]
    runs: tuple[int, int]
    p: float | None = None
    reverse_p: float | None = None
    corrected_p: float | None = None

    @property
    def is_clear(self) -> bool:
        """Whether the test confirms the order of the medians, without correction."""
        p = {SAME: self.p, REVERSED: self.reverse_p}.get(self.order)
        return p is not None and p <= LEVEL


def errors(result: RowResult) -> list[float]:
    """The test errors of a row's runs, 0 to 1; of one that diverged it is infinite."""
    finished = [run.test_error for run in result.of_state("finished")]
    return [*finished, *[math.inf] * len(result.of_state("diverged"))]


def verdicts(table: Table, results: Sequence[RowResult]) -> list[Verdict]:
    """Compares each claim of a table, each pair of rows once, with the measured errors."""
    of_row = {result.row.name: errors(result) for result in results}
    found = [_verdict(claim, of_row) for claim in _distinct(table.all_claims())]
    tested = [place for place, verdict in enumerate(found) if verdict.p is not None]
    corrected = holm([found[place].p for place in tested])
    for place, p in zip(tested, corrected, strict=True):
        found[place] = dataclasses.replace(found[place], corrected_p=p)
    return found


def _distinct(claims: Iterable[Claim]) -> list[Claim]:
    """The claims, those on the same two rows as one."""
    found: dict[tuple[str, str], Claim] = {}
    for claim in claims:
        key = claim.better, claim.worse
        if key in found:
            claim = dataclasses.replace(found[key], where=f"{found[key].where}; {claim.where}")
        found[key] = claim
    return list(found.values())


def _verdict(claim: Claim, of_row: Mapping[str, Sequence[float]]) -> Verdict:
    better, worse = of_row[claim.better], of_row[claim.worse]
    runs = len(better), len(worse)
    medians = tuple(median(values) if values else math.nan for values in (better, worse))
    if not all(runs):
        return Verdict(claim, OPEN, medians, runs)
    order = EQUAL if medians[0] == medians[1] else SAME if medians[0] < medians[1] else REVERSED
    if least_p(*runs) > LEVEL:
        return Verdict(claim, order, medians, runs)
    return Verdict(claim, order, medians, runs, p_lower(better, worse), p_lower(worse, better))


def correlation(results: Sequence[RowResult]) -> tuple[float, float, int] | None:
    """Kendall's tau-b of published errors and measured medians of rows, its p, and their number.

    None for fewer than `FEWEST_ROWS` rows that have both. Published failures are highest, as are
    medians of runs that diverged.
    """
    pairs = [
        (_published(result.row), median(errors(result)))
        for result in results
        if result.row.published is not None and errors(result)
    ]
    if len(pairs) < FEWEST_ROWS:
        return None
    tau, p = kendall(*zip(*pairs, strict=True))
    return None if math.isnan(tau) else (tau, p, len(pairs))


def _published(row: Row) -> float:
    return math.inf if row.published.fails else row.published.error_percent


def sentences(found: Sequence[Verdict], whose: str) -> list[str]:
    """The rankings in plain sentences.

    Args:
        found: the verdicts.
        whose: the claims are, as in "the paper".
    """
    if not found:
        return [f"There are no two rows that {whose} ranks."]
    orders = [verdict.order for verdict in found]
    same, turned, equal, undecided = map(orders.count, (SAME, REVERSED, EQUAL, OPEN))
    text = [f"Of {len(found)} rankings of {whose}, {same} {_have(same)} the same order here"]
    text.append(f"{turned} {'is' if turned == 1 else 'are'} reversed")
    text += [f"{equal} {_have(equal)} equal medians"] if equal else []
    if undecided:
        text.append(f"{undecided} {'is' if undecided == 1 else 'are'} undecided, as a row has no "
                    "run that has ended")  # fmt: skip
    lines = [f"{', '.join(text[:-1])} and {text[-1]}."]
    return [*lines, *_confidence(found)]


def _have(count):
    return "has" if count == 1 else "have"


def _confidence(found) -> Iterable[str]:
    ended = [verdict for verdict in found if verdict.order != OPEN]
    tested = [verdict for verdict in ended if verdict.p is not None]
    untested = [verdict for verdict in ended if verdict.p is None]
    if tested:
        clear = {
            order: [verdict for verdict in tested if verdict.order == order and verdict.is_clear]
            for order in (SAME, REVERSED)
        }
        after = sum(verdict.corrected_p <= LEVEL for verdict in tested)
        same, turned = map(len, (clear[SAME], clear[REVERSED]))
        limit = f"p \N{LESS-THAN OR EQUAL TO} {LEVEL:g}"
        yield (
            f"Of those in the same order, {same} {_have(same)} {limit} each on its own (exact "
            f"Mann-Whitney test, one-sided), and {after} after Holm's correction for {len(tested)} "
            f"tested rankings. Of the reversed ones, {turned} {_have(turned)} {limit} in the other "
            "direction."
        )
        least = min(least_p(*verdict.runs) for verdict in tested)
        sizes = max((verdict.runs for verdict in tested), key=lambda runs: -least_p(*runs))
        best = f"With {sizes[0]} runs against {sizes[1]} the lowest possible p is {least:.2g}"
        if least * len(tested) > LEVEL:
            best += f", so that after a correction for {len(tested)} rankings none could pass"
        yield f"{best}."
    if untested:
        sizes = sorted({tuple(sorted(verdict.runs)) for verdict in untested})
        if sizes == [(1, 1)]:
            yield f"{_all_or(untested, ended)} one run each: no confidence."
        else:
            shown = ", ".join(f"{one} against {other}" for one, other in sizes)
            yield (
                f"{_all_or(untested, ended)} too few runs for a test ({shown}; the lowest "
                f"possible p is {min(least_p(*s) for s in sizes):.2g}): no confidence."
            )


def _all_or(some, every):
    return "All have" if len(some) == len(every) else f"{len(some)} rankings have"
