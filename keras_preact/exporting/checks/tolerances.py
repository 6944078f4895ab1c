"""The tolerance of each file, and the error if a file exceeds it."""

import abc
import dataclasses
import decimal
import math
from collections.abc import Mapping

from keras_preact.exporting.checks import sampling_error
from keras_preact.exporting.checks.parity import Agreement, ParityError
from keras_preact.exporting.config import WEIGHTS, ExportConfig


@dataclasses.dataclass(frozen=True)
class Limit(abc.ABC):
    """A limit on how much a file differs from the Keras model.

    Args:
        flag: the flag that sets the limit.
        value: of the flag.
    """

    flag: str
    value: float

    @abc.abstractmethod
    def excess(self, agreement: Agreement) -> str | None:
        """Says in words how a file exceeds the limit; None if it does not."""

    @abc.abstractmethod
    def sufficient(self, agreement: Agreement) -> float:
        """Returns a value of the flag, rounded to few digits, that accepts the file."""


class MaxDifference(Limit):
    """The largest difference of a probability."""

    name = "max_difference"

    def __str__(self) -> str:
        return f"{self.value:g} in a probability"

    def excess(self, agreement: Agreement) -> str | None:
        if agreement.max_difference <= self.value:
            return None
        return f"differs by {agreement.max_difference:.2g} in a probability"

    def sufficient(self, agreement: Agreement) -> float:
        return _round(agreement.max_difference, decimal.ROUND_CEILING)


class MaxLoss(Limit):
    """The largest loss of accuracy in percentage points, apart from sampling error."""

    name = "max_loss_points"

    def __str__(self) -> str:
        return f"{self.value:g} {'point' if self.value == 1 else 'points'} of accuracy"

    def excess(self, agreement: Agreement) -> str | None:
        images, lost, gained = agreement.images, agreement.lost, agreement.gained
        if not sampling_error.loses_more(images, lost, gained, self.value / 100):
            return None
        keras_accuracy = agreement.accuracy + agreement.loss_points / 100
        lowest_points, _ = agreement.loss_interval_points
        return (
            f"has an accuracy of {agreement.accuracy:.2%}, the Keras model of "
            f"{keras_accuracy:.2%}: {agreement.loss_points:.2f} points less ({lost:,} answers "
            f"became wrong, {gained:,} right, of {images:,} images), "
            f"with 95 % confidence more than {lowest_points:.2f}"
        )

    def sufficient(self, agreement: Agreement) -> float:
        return _round(agreement.loss_points, decimal.ROUND_CEILING)


class LeastAgreement(Limit):
    """The smallest percentage of answers equal to the Keras model's, apart from sampling error."""

    name = "least_agreement_percent"

    def __str__(self) -> str:
        return f"{self.value:g} % of answers equal"

    def excess(self, agreement: Agreement) -> str | None:
        images, changed = agreement.images, agreement.changed
        if not sampling_error.happens_more(images, changed, 1 - self.value / 100):
            return None
        return (
            f"agrees with the Keras model on {agreement.agreement:.2%} of the answers "
            f"({changed:,} of {images:,} changed)"
        )

    def sufficient(self, agreement: Agreement) -> float:
        return _round(100 * agreement.agreement, decimal.ROUND_FLOOR)


@dataclasses.dataclass(frozen=True)
class Tolerance:
    """The most that a file may differ from the Keras model.

    Args:
        limits: one or more; all must be kept.

    Raises:
        ValueError: if there is no limit.
    """

    limits: tuple[Limit, ...]

    def __post_init__(self):
        if not self.limits:
            raise ValueError("A tolerance must have at least one limit. Received: none")

    def __str__(self) -> str:
        return ", ".join(map(str, self.limits))

    def to_json(self) -> dict[str, dict]:
        """Returns flag and value of each limit, by the limit's name."""
        return {limit.name: dataclasses.asdict(limit) for limit in self.limits}

    def excess(self, agreement: Agreement) -> str | None:
        """Says in words how a file exceeds the tolerance; None if it does not."""
        if not math.isfinite(agreement.max_difference):
            # Its accuracy may by chance be that of the Keras model.
            return f"gives probabilities that are not finite, as for {agreement.worst_image}."
        exceeded = [
            f"{excess}; allowed: {limit} (--{limit.flag})"
            for limit in self.limits
            if (excess := limit.excess(agreement))
        ]
        if not exceeded:
            return None
        return (
            f"{', and '.join(exceeded)}. {agreement.worst_image} differs most, by "
            f"{agreement.max_difference:.2g} in a probability."
        )

    def sufficient(self, agreement: Agreement) -> dict[str, float] | None:
        """Returns values of the flags of the exceeded limits that accept a file.

        None means that the file is never accepted.
        """
        if not math.isfinite(agreement.max_difference):
            return None
        exceeded = [limit for limit in self.limits if limit.excess(agreement)]
        return {limit.flag: limit.sufficient(agreement) for limit in exceeded}


def tolerance_of(kind: str, config: ExportConfig) -> Tolerance:
    """The tolerance of a kind of file; see `verification.WrittenFile`."""
    if kind in ("saved_model_bfloat16", "saved_model_float16"):
        agreement = config.saved_model_agreement_percent
        return Tolerance(
            (
                MaxLoss("saved_model_loss_points", config.saved_model_loss_points),
                LeastAgreement("saved_model_agreement_percent", agreement),
            )
        )
    if kind in ("saved_model_float32", "float32", "float16", *WEIGHTS):
        precision = "float16" if kind == "float16" else "float32"
        flag = f"{precision}_tolerance"
        return Tolerance((MaxDifference(flag, getattr(config, flag)),))
    return Tolerance((MaxLoss("int8_loss_points", config.int8_loss_points),))


def check(agreements: Mapping[str, Agreement], tolerances: Mapping[str, Tolerance]) -> None:
    """Raises ParityError if a file exceeds its tolerance, with a line for each such file.

    Args:
        agreements: by the file's name.
        tolerances: by the file's name.
    """
    lines = [
        f"  {name} {excess}"
        for name, tolerance in tolerances.items()
        if (excess := tolerance.excess(agreements[name]))
    ]
    if lines:
        images = max(agreement.images for agreement in agreements.values())
        raise ParityError(
            f"Compared with the Keras model on {images:,} evaluation images, these files "
            "exceed their tolerance. Nothing has been exported.\n" + "\n".join(lines)
        )


def _round(value, rounding):
    """Rounds to two significant digits."""
    return float(decimal.Context(prec=2, rounding=rounding).create_decimal(repr(value)))
