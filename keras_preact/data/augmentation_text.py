"""The text of `--augmentation`: a base, then operations, as in pad_crop_flip,rand_augment=9."""

import dataclasses
from typing import NamedTuple

from keras_preact.support.choices import one_of
from keras_preact.support.text import shown

# How a training image is cut out and mirrored, before operations change it.
# The last ones need images of any size.
OF_ANY_SIZE = ("random_resized_crop", "random_scale_crop")
BASES = ("none", "pad_crop", "pad_crop_flip", *OF_ANY_SIZE)


class Number(NamedTuple):
    """The number that may follow an operation.

    Args:
        name: in words.
        default: where none is given.
        most: the largest; the least is 0.
        whole: whether it must be a whole number.
    """

    name: str
    default: float
    most: float
    whole: bool = False


# None: no number may follow.
OPERATIONS: dict[str, Number | None] = {
    "rand_augment": Number("a magnitude", 9, 30, whole=True),
    "trivial_augment": None,
    "color_jitter": Number("a strength", 0.4, 1),
    "hue_jitter": Number("a part of the circle", 0.1, 0.5),
    "random_erasing": Number("a probability", 0.5, 1),
}
HELP = (
    "augmentation of training images, BASE[,OPERATION[=NUMBER]]...: BASE is "
    f"{', '.join(BASES)}; OPERATION is {', '.join(OPERATIONS)}"
)
# A policy chooses among all operations: two policies would be neither paper's.
_POLICIES = ("rand_augment", "trivial_augment")
_RULE = (
    f"BASE[,OPERATION[=NUMBER]]..., with BASE of {', '.join(BASES)}, and OPERATION of "
    f"{', '.join(OPERATIONS)}"
)


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """An augmentation of training images.

    Args:
        base: one of BASES; None for the data set's default.
        operations: (name, number) of each, in the order in which they change an image.
    """

    base: str | None
    operations: tuple[tuple[str, float | None], ...] = ()

    def __str__(self) -> str:
        parts = [self.base] if self.base else []
        for name, number in self.operations:
            parts.append(name if number is None else f"{name}={number:g}")
        return ",".join(parts)


def parse(text: str) -> Augmentation:
    """Reads the text of --augmentation.

    Args:
        text: BASE[,OPERATION[=NUMBER]]..., or operations alone.

    Raises:
        ValueError: if a name is unknown, a number is out of its range or missing where "=" stands,
            a name occurs twice, a base does not come first, or there are two policies.
    """
    parts = [part.strip() for part in text.split(",")]
    base = parts.pop(0) if parts[0] in BASES else None
    read = tuple(_operation(part, text) for part in parts)
    names = [name for name, _ in read]
    if twice := [name for name in names if names.count(name) > 1]:
        raise ValueError(f"augmentation must name {twice[0]} once. {_received(text)}")
    if set(_POLICIES) <= set(names):
        policies = " and ".join(_POLICIES)
        raise ValueError(f"augmentation must have one of {policies}, not both. {_received(text)}")
    return Augmentation(base, read)


def _operation(part, text):
    name, equals, number = (piece.strip() for piece in part.partition("="))
    if name in BASES:
        raise ValueError(f"augmentation must begin with its base, {name}. {_received(text)}")
    one_of("augmentation", name, (*OPERATIONS, *BASES), _RULE)
    rule = OPERATIONS[name]
    if rule is None:
        if equals:
            raise ValueError(f"augmentation {name} takes no number. {_received(text)}")
        return name, None
    if not equals:
        return name, rule.default
    try:
        value = float(number)
    except ValueError:
        value = -1.0
    if not 0 <= value <= rule.most or (rule.whole and value != int(value)):
        kind = "a whole number" if rule.whole else "a number"
        raise ValueError(
            f"augmentation {name} must be {rule.name}, {kind} of 0 to {rule.most:g}. "
            f"{_received(text)}"
        )
    return name, value


def _received(text):
    return f"Received: augmentation={shown(text)}"
