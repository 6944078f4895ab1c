"""The report's words: the figures' budget, what differs from the publication, headers, states."""

import dataclasses
import math
from collections.abc import Iterable, Sequence
from typing import Any

from keras_preact.experiments.experiment import Experiment
from keras_preact.experiments.rankings import REVERSED, Verdict
from keras_preact.experiments.results import STATES, RowResult, without_code
from keras_preact.experiments.run_facts import RunFacts
from keras_preact.experiments.table import FAIL_PERCENT, Row, Table
from keras_preact.training import TrainConfig, user_code
from keras_preact.training.run_folder import learned

# They say the length of training, which the budget's sentence says already.
_OF_LENGTH = ("train_steps", "train_epochs", "scale_schedule")
NOTHING = "-"
# More reversed rankings are in the table alone.
_MOST_NAMES = 6


@dataclasses.dataclass(frozen=True)
class Difference:
    """A flag with another value than in a row's own recipe."""

    name: str
    own: Any
    here: Any

    def __str__(self) -> str:
        return f"{self.name} = {_shown(self.here)} in place of {_shown(self.own)}"


def differences(result: RowResult) -> list[Difference]:
    """The flags that change what is learned, where a run's differ from its row's own recipe."""
    own, here = learned(own_recipe(result.row)), learned(result.config)
    names = [name for name in here if name not in ("seed", *_OF_LENGTH)]
    if _is_of_code(result.row):
        names = [*without_code(dict.fromkeys(names))]
    return [Difference(name, own[name], here[name]) for name in names if own[name] != here[name]]


def own_recipe(row: Row) -> TrainConfig:
    """The configuration of a row's full recipe, without code of the user's that has gone."""
    try:
        return row.config()
    except ValueError:
        return TrainConfig(**without_code(row.given()))


def _is_of_code(row):
    return any(user_code.parse(str(row.given().get(name, ""))) for name in user_code.FIELDS)


def about_figures(
    experiment: Experiment, results: Sequence[RowResult], facts: Sequence[RunFacts]
) -> list[str]:
    """Says, beside the budget, what a measured figure is, the most important first."""
    budget, table = experiment.budget, experiment.table
    lines = []
    published = any(result.row.published for result in results)
    if published and not budget.is_published_setting:
        lines.append(
            "A measured figure here is of another length of training than the published figure "
            "beside it: the two columns do not show whether the publication's error is reproduced."
        )
    lines += _about_data(results)
    lines += _about_flags(results)
    if published and table.setting:
        lines.append(f"The published figures: {table.setting}.")
    lines.append(_about_evaluation(results, facts))
    lines += _about_notes(results)
    return lines


def _about_data(results) -> Iterable[str]:
    others = {
        (own_recipe(result.row).dataset, result.config.dataset)
        for result in results
        if own_recipe(result.row).dataset != result.config.dataset
    }
    for own, here in sorted(others, key=str):
        yield (
            f"The images are those of {here}, not of {own}: no error on them can be compared with "
            "one of the table's data set."
        )


def _about_flags(results) -> Iterable[str]:
    of_row = {result.row.label: differences(result) for result in results}
    shared = [
        one
        for one in next(iter(of_row.values()), [])
        if all(one in found for found in of_row.values())
    ]
    if shared:
        yield f"All rows differ from their own recipes: {'; '.join(map(str, shared))}."
    of_rest: dict[str, list[str]] = {}
    for label, found in of_row.items():
        if rest := "; ".join(str(one) for one in found if one not in shared):
            of_rest.setdefault(rest, []).append(label)
    for rest, labels in of_rest.items():
        yield f"{'; '.join(labels)}: {rest}."


def _about_evaluation(results, facts) -> str:
    images = {run.test_images for result in results for run in result.of_state("finished")}
    counts = " or ".join(f"{count:,}" for count in sorted(images))
    which = f"the {counts} test images" if images else "the test images"
    line = (
        "A measured error is that of a single network with the weights after its last step, on "
        f"{which}, each counted once; no checkpoint is chosen by its test error."
    )
    held_out = {run.images for run in facts if run.images and run.images[2]}
    for train, validation, _ in sorted(held_out):
        line += (
            f" {validation:,} images were held out of training for validation, which leaves "
            f"{train:,}; the publication trains on all of them. The test images are used at the "
            "end alone."
        )
    return line


def _about_notes(results) -> Iterable[str]:
    of_note: dict[str, list[str]] = {}
    for result in results:
        if result.row.published and result.row.published.note:
            of_note.setdefault(result.row.published.note, []).append(result.row.label)
    for note, labels in of_note.items():
        which = "All published figures" if len(labels) == len(results) else "; ".join(labels)
        yield f"{which}: {note}."


def published_header(results: Sequence[RowResult]) -> str:
    """The header of published figures, with the length of their training: "... (64k steps)"."""
    lengths = {_length(own_recipe(r.row)) for r in results if r.row.published}
    length = lengths.pop() if len(lengths) == 1 else None
    return f"published ({length})" if length else "published"


def published_texts(results: Sequence[RowResult]) -> dict[str, str]:
    """The published figure of each row by its name, all with as many digits: "8.70"."""
    figures = [f for r in results for f in _figures(r.row) if f is not None]
    digits = max((len(f"{figure:g}".partition(".")[2]) for figure in figures), default=0)
    return {
        result.row.name: " / ".join(
            "fail" if figure is None else f"{figure:.{digits}f}" for figure in _figures(result.row)
        )
        or NOTHING
        for result in results
    }


def _figures(row):
    own = row.published
    if own is None:
        return []
    top5 = own.top5_error_percent
    return [own.error_percent, *([] if top5 is None else [top5])]


def measured_header(experiment: Experiment, results: Sequence[RowResult]) -> str:
    """The header of measured figures: their budget, and the user's own flags if there are some."""
    budget = experiment.budget
    if budget.is_published_setting:
        parts = ["full recipe"]
    else:
        scaled = " scaled" if any(r.config.scale_schedule for r in results) else ""
        parts = [f"{budget.name}: {budget.steps:,} steps{scaled}"]
    found = {str(one.name): one for result in results for one in differences(result)}
    names = [name for name in found if name in experiment.given]
    if "dataset" in found and "dataset" not in names:
        names.insert(0, "dataset")
    parts += [
        f"{name}={_shown(found[name].here)}" for name in names if _is_same(found[name], results)
    ]
    parts += ["other flags"] * any(not _is_same(found[name], results) for name in names)
    return f"measured ({', '.join(parts)})"


def _is_same(difference, results):
    return len({str(getattr(result.config, difference.name)) for result in results}) == 1


def _length(config: TrainConfig) -> str | None:
    for name in ("train", "schedule"):
        if epochs := getattr(config, f"{name}_epochs"):
            return f"{epochs:g} epochs"
        if steps := getattr(config, f"{name}_steps"):
            return f"{steps / 1000:g}k steps" if steps >= 1000 else f"{steps} steps"
    return None


def column_name(results: Sequence[RowResult]) -> str:
    """The name of the rows' column; tables of one's own may leave it out."""
    return results[0].row.column or "All rows"


def reversed_rankings(found: Sequence[Verdict], table: Table) -> Iterable[str]:
    """Names the reversed rankings, the clearest first."""
    turned = [verdict for verdict in found if verdict.order == REVERSED]
    turned.sort(key=lambda verdict: verdict.reverse_p if verdict.is_clear else 1)
    names = [
        f"{table.row(verdict.claim.worse).label} ({percent(verdict.medians[1])}) is below "
        f"{table.row(verdict.claim.better).label} ({percent(verdict.medians[0])}"
        + (f", p = {verdict.reverse_p:.2g})" if verdict.is_clear else ")")
        for verdict in turned
    ]
    if names:
        more = f"; and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
        yield f"Reversed: {'; '.join(names[:_MOST_NAMES])}{more}."


def counts(result: RowResult) -> str:
    """The number of a row's runs by state: "3 of 5 (1 diverged, 1 missing)"."""
    planned, finished = len(result.seeds), len(result.of_state("finished"))
    others = [
        f"{number} {state}"
        for state in STATES
        if state != "finished" and (number := len(result.of_state(state)))
    ]
    return f"{finished} of {planned}" + (f" ({', '.join(others)})" if others else "")


def percent(share: float | None) -> str:
    """A share of 0 to 1 as percentages stand in the table: "6.61"."""
    if share is None or math.isnan(share):
        return NOTHING
    return "diverged" if math.isinf(share) else f"{100 * share:.2f}"


def fails(median: float, experiment: Experiment, results: Sequence[RowResult]) -> bool:
    """Whether the publication would print "fail" for an error of a column.

    On data sets where some published errors are above `FAIL_PERCENT`, a high one is no failure.
    """
    figures = [r.row.published.error_percent for r in results if r.row.published]
    is_usual = figures and all(figure is None or figure <= FAIL_PERCENT for figure in figures)
    is_high = math.isfinite(median) and 100 * median > FAIL_PERCENT
    return bool(is_usual and is_high and experiment.budget.is_published_setting)


def duration(seconds: float | None) -> str:
    """A time as people read it: "2.5 h"."""
    if seconds is None:
        return NOTHING
    for unit, length in (("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.0f} s"


def short_labels(labels: Sequence[str]) -> list[str]:
    """The labels without the words up to a comma that all begin with."""
    parts = [label.split(", ") for label in labels]
    shared = 0
    while (
        len(labels) > 1
        and all(len(part) > shared + 1 for part in parts)
        and len({part[shared] for part in parts}) == 1
    ):
        shared += 1
    return [", ".join(part[shared:]) for part in parts]


def _shown(value):
    if value is None:
        return "none"
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
