"""The tolerance of each file, and the error if a file exceeds it."""

import dataclasses
import math
from collections.abc import Mapping

from keras_preact.exporting.checks.parity import Agreement, ParityError
from keras_preact.exporting.config import ExportConfig


@dataclasses.dataclass(frozen=True)
class Tolerance:
    """The most that a file may differ from the Keras model; exactly one limit is given.

    Args:
        flag: the flag that sets the limit.
        max_difference: of a probability.
        max_loss_points: of accuracy, in percentage points.
    """

    flag: str
    max_difference: float | None = None
    max_loss_points: float | None = None

    def __str__(self) -> str:
        if self.max_difference is not None:
            return f"{self.max_difference:g} in a probability"
        return f"{self.max_loss_points:g} points of accuracy"

    def excess(self, agreement: Agreement, keras: Agreement) -> str | None:
        """Says in words how a file exceeds the tolerance; None if it does not."""
        if not math.isfinite(agreement.max_difference):
            # Its accuracy may by chance be that of the Keras model.
            return "gives probabilities that are not finite"
        if self.max_difference is not None:
            if agreement.max_difference <= self.max_difference:
                return None
            return f"differs by {agreement.max_difference:.2g} in a probability"
        lost = 100 * (keras.accuracy - agreement.accuracy)
        # Counted in whole images, as shares are not exact in floating point.
        if round(lost * keras.images / 100) <= self.max_loss_points * keras.images / 100 + 1e-6:
            return None
        return (
            f"has an accuracy of {agreement.accuracy:.2%}, the Keras model of "
            f"{keras.accuracy:.2%}: {lost:.2f} points less"
        )


def tolerance_of(kind: str, config: ExportConfig) -> Tolerance:
    """The tolerance of a kind of TFLite file; a SavedModel has that of float32."""
    if kind in ("float32", "float16"):
        flag = f"{kind}_tolerance"
        return Tolerance(flag, max_difference=getattr(config, flag))
    return Tolerance("int8_loss_points", max_loss_points=config.int8_loss_points)


def check(
    agreements: Mapping[str, Agreement], reference: str, tolerances: Mapping[str, Tolerance]
) -> None:
    """Raises ParityError if a file exceeds its tolerance, with a line for each such file.

    Args:
        agreements: by the file's name.
        reference: the name of the Keras model among them.
        tolerances: by the file's name.
    """
    keras, lines = agreements[reference], []
    for name, tolerance in tolerances.items():
        agreement = agreements[name]
        if excess := tolerance.excess(agreement, keras):
            lines.append(
                f"  {name} {excess}; allowed: {tolerance} (--{tolerance.flag}). "
                f"{agreement.worst_image} differs most, by {agreement.max_difference:.2g} in a "
                "probability"
            )
    if lines:
        raise ParityError(
            f"Compared with the Keras model on {keras.images:,} evaluation images, these files "
            "exceed their tolerance. Nothing has been exported.\n" + "\n".join(lines)
        )
