"""Budgets: how much of the full recipe a run of an experiment takes."""

import dataclasses
from typing import Any

from keras_preact.support.choices import one_of


@dataclasses.dataclass(frozen=True)
class Budget:
    """The length and number of runs.

    Args:
        name: a key of `BUDGETS`.
        seeds: number of runs of each row by default.
        steps: of training; None for the recipe's length.
        meaning: what a figure under this budget is, in a sentence that stands beside it.
    """

    name: str
    seeds: int
    steps: int | None
    meaning: str

    @property
    def is_published_setting(self) -> bool:
        """Whether a figure may stand beside a published one without a remark."""
        return self.name == "paper"

    def given(self) -> dict[str, Any]:
        """The fields of `TrainConfig` that the budget sets."""
        match self.name:
            case "paper":
                return {}
            case "short":
                return {"train_steps": self.steps, "scale_schedule": True}
            case "early":
                return {"train_steps": self.steps, "log_steps": 10}
            case _:
                # Images that need no download; the net is the row's own.
                return {
                    **{"train_steps": self.steps, "log_steps": 1, "global_batch_size": 32},
                    **{"dataset": "digits", "augmentation": "none"},
                    # The deepest original nets diverge at the full rate at once.
                    **{"warmup_steps": 0, "learning_rate": 1e-3},
                }


BUDGETS = {
    budget.name: budget
    for budget in (
        Budget("paper", 5, None, "the full recipe"),
        Budget(
            "short",
            3,
            5000,
            "the recipe's schedule scaled to {steps:,} steps: errors are higher than published "
            "ones, and rankings may differ",
        ),
        Budget(
            "early",
            1,
            300,
            "the first {steps:,} steps of the full recipe, at its first learning rates: it shows "
            "how training begins, and says nothing about final errors",
        ),
        Budget(
            "smoke",
            1,
            3,
            "{steps:,} steps on 8x8 digits: it shows that the row runs, and nothing else",
        ),
    )
}


def budget(name: str, steps: int | None = None) -> Budget:
    """The budget of a name, with another length if steps are given.

    Raises:
        ValueError: if there is no such budget, or steps are given for "paper".
    """
    chosen = BUDGETS[one_of("budget", name, BUDGETS)]
    if steps is None:
        return _told(chosen)
    if chosen.steps is None:
        raise ValueError(
            f"steps is for the budgets short, early and smoke: paper is the full recipe. "
            f"Received: budget={name}, steps={steps}"
        )
    return _told(dataclasses.replace(chosen, steps=steps))


def _told(chosen):
    return dataclasses.replace(chosen, meaning=chosen.meaning.format(steps=chosen.steps))
