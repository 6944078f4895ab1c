"""The published orders of BN and ReLU around the convolutions of a unit, as a table."""

import dataclasses

import keras

from keras_preact.support.choices import one_of

OPERATIONS = ("conv", "bn", "relu")


@keras.saving.register_keras_serializable(package="keras_preact")
@dataclasses.dataclass(frozen=True)
class ActivationOrder:
    """Where BN and ReLU stand: a row of `ORDERS`, or an order of your own.

    Each field is a sequence of "conv", "bn" and "relu", separated by blanks. A basic
    unit uses `first` and `last`, a bottleneck unit all three. A one-layer unit takes from
    `first` what stands before the convolution, from `last` what stands after it.

    Source: "Identity Mappings in Deep Residual Networks", figure 4.

    Args:
        first: the sequence around the first convolution.
        middle: the sequence around the middle convolution of a bottleneck unit.
        last: the sequence around the last convolution.
        after_addition: what follows the sum, without "conv".

    Raises:
        ValueError: if a sequence has another word, or not exactly one "conv".
    """

    first: str
    middle: str
    last: str
    after_addition: str = ""

    def __post_init__(self):
        for field in dataclasses.fields(self):
            words = getattr(self, field.name).split()
            convolutions = 0 if field.name == "after_addition" else 1
            if set(words) - set(OPERATIONS) or words.count("conv") != convolutions:
                raise ValueError(
                    f"{field.name} must be made of the words {', '.join(OPERATIONS)}, with "
                    f"{convolutions} 'conv'. Received: {field.name}={getattr(self, field.name)!r}"
                )

    def sequences(self, convolutions: int) -> list[list[str]]:
        """The operations around each of the 1, 2 or 3 convolutions of a unit, in order."""
        if convolutions == 1:
            return [[*self.preactivation, "conv", *self._after(self.last)]]
        rows = [self.first, *[self.middle] * (convolutions - 2), self.last]
        return [row.split() for row in rows]

    @property
    def preactivation(self) -> list[str]:
        """The operations before the first convolution, and again before the global pooling."""
        return self.first.partition("conv")[0].split()

    @property
    def stem_completion(self) -> list[str]:
        """The operations after the first convolution, and so after the stem's."""
        return self._after(self.first)

    @property
    def projection(self) -> list[str]:
        """The operations of a projection: BN follows it where BN follows the last convolution.

        As in the authors' code: Torch's original net normalizes its projections, the
        pre-activation net does not.
        """
        return ["conv", "bn"] if "bn" in self._after(self.last) else ["conv"]

    def get_config(self) -> dict:
        return dataclasses.asdict(self)

    @classmethod
    def from_config(cls, config: dict) -> "ActivationOrder":
        return cls(**config)

    @staticmethod
    def _after(sequence: str) -> list[str]:
        return sequence.partition("conv")[2].split()


ORDERS = {
    "original": ActivationOrder(
        first="conv bn relu", middle="conv bn relu", last="conv bn", after_addition="relu"
    ),
    "bn_after_addition": ActivationOrder(
        first="conv bn relu", middle="conv bn relu", last="conv", after_addition="bn relu"
    ),
    "relu_before_addition": ActivationOrder(
        first="conv bn relu", middle="conv bn relu", last="conv bn relu"
    ),
    "relu_only_preactivation": ActivationOrder(
        first="relu conv bn", middle="relu conv bn", last="relu conv bn"
    ),
    "full_preactivation": ActivationOrder(
        first="bn relu conv", middle="bn relu conv", last="bn relu conv"
    ),
}


def get(identifier: str | ActivationOrder | dict) -> ActivationOrder:
    """The order that a name, an `ActivationOrder` or a saved configuration stands for.

    Raises:
        ValueError: if the name is unknown.
    """
    if isinstance(identifier, ActivationOrder):
        return identifier
    if isinstance(identifier, dict):
        return keras.saving.deserialize_keras_object(identifier)
    return ORDERS[one_of("unit", identifier, ORDERS)]
