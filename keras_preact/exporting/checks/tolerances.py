"""How much each file may differ from the Keras model, and the error where one differs more."""

import dataclasses
import math
from collections.abc import Callable, Mapping

from keras_preact.exporting.checks.parity import Agreement, ParityError
from keras_preact.exporting.config import ExportConfig


@dataclasses.dataclass(frozen=True)
class Tolerance:
    """What a file may differ by: exactly one of the two is given.

    Args:
        flag: by which the user sets it.
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
        """What is beyond the tolerance, in words; None where nothing is."""
        if not math.isfinite(agreement.max_difference):
            # It may be right about as often as the Keras model, by chance.
            return "gives probabilities that are not finite"
        if self.max_difference is not None:
            if agreement.max_difference <= self.max_difference:
                return None
            return f"differs by {agreement.max_difference:.2g} in a probability"
        lost = 100 * (keras.accuracy - agreement.accuracy)
        # In whole images, as neither the difference of two shares nor a share of images is exact.
        if round(lost * keras.images / 100) <= self.max_loss_points * keras.images / 100 + 1e-6:
            return None
        return (
            f"answers {agreement.accuracy:.2%} right in place of {keras.accuracy:.2%}, "
            f"{lost:.2f} points less"
        )


def tolerance_of(kind: str, config: ExportConfig) -> Tolerance:
    """The tolerance of a kind of TFLite file; that of a SavedModel is float32's."""
    if kind in ("float32", "float16"):
        flag = f"{kind}_tolerance"
        return Tolerance(flag, max_difference=getattr(config, flag))
    return Tolerance("int8_loss_points", max_loss_points=config.int8_loss_points)


def check(
    agreements: Mapping[str, Agreement],
    reference: str,
    tolerances: Mapping[str, Tolerance],
    name_of: Callable[[int], str],
) -> None:
    """Raises ParityError if a file is beyond its tolerance, with a line for each that is.

    Args:
        agreements: by the file's name.
        reference: the name of the Keras model among them.
        tolerances: of the files, likewise.
        name_of: says which image has a position.
    """
    keras, lines = agreements[reference], []
    for name, tolerance in tolerances.items():
        agreement = agreements[name]
        if excess := tolerance.excess(agreement, keras):
            lines.append(
                f"  {name} {excess}; allowed: {tolerance} (--{tolerance.flag}). "
                f"{name_of(agreement.worst_image)} differs most, by "
                f"{agreement.max_difference:.2g} in a probability"
            )
    if lines:
        raise ParityError(
            f"Compared with the Keras model on {keras.images:,} evaluation images, these are "
            "beyond their tolerance. Nothing has been exported.\n" + "\n".join(lines)
        )
