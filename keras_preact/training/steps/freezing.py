"""Parts of a network that learn later, slower or never, by the names of their layers."""

import dataclasses
import math
from collections.abc import Iterable
from typing import TYPE_CHECKING

import keras

from keras_preact.models import architectures
from keras_preact.support.choices import one_of
from keras_preact.training import own_units

if TYPE_CHECKING:
    from keras_preact.training.config import TrainConfig

ALL_BUT_HEAD = "all_but_head"
STEM, HEAD_BN, LOGITS = "stem", "head_bn", "logits"


@dataclasses.dataclass(frozen=True)
class Phase:
    """Steps that train the same parts.

    Args:
        frozen: names of the parts whose weights stay as they are.
        kept_bn: names of the parts whose BN normalizes with its moving statistics and leaves
            them as they are.
    """

    frozen: frozenset[str] = frozenset()
    kept_bn: frozenset[str] = frozenset()


@dataclasses.dataclass(frozen=True)
class Freezing:
    """The phases of a run, and the factors on its learning rate.

    Args:
        first: the phase of the first steps.
        thawed: the phase from thaw_step on.
        thaw_step: None if the first phase never ends.
        factors: on the learning rate, by name of a layer such as stage1_unit1; 1 for others.
    """

    first: Phase = Phase()
    thawed: Phase = Phase()
    thaw_step: int | None = None
    factors: tuple[tuple[str, float], ...] = ()

    def phase_of(self, step: int) -> tuple[int, Phase]:
        """Returns number and phase of a step, counted from 0."""
        is_thawed = self.thaw_step is not None and step >= self.thaw_step
        return (1, self.thawed) if is_thawed else (0, self.first)

    def steps_left(self, done: int) -> float:
        """Returns how many steps after `done` belong to one phase."""
        if self.thaw_step is None or done >= self.thaw_step:
            return math.inf
        return self.thaw_step - done

    def first_step(self, part: str, phase: Phase) -> int:
        """Returns the number of steps before a part began to learn, in a phase in which it does."""
        return self.thaw_step if phase is self.thawed and part in self.first.frozen else 0

    def factor(self, path: str) -> float:
        """Returns the factor on the learning rate of a variable."""
        return dict(self.factors).get(path.partition("/")[0], 1.0)


def part_of(path: str) -> str:
    """Returns the part of a variable: stem, stage1 and so on, head_bn, or logits."""
    layer = path.partition("/")[0]
    return layer.partition("_")[0] if layer.startswith(("stem_", "stage")) else layer


def parts(config: "TrainConfig") -> tuple[str, ...]:
    """Returns the names of the parts of a network that may be frozen, from its input on."""
    architecture = architectures.resolve(config.depth, config.stem, config.block)
    stages = (f"stage{number}" for number in range(1, len(architecture.stage_units) + 1))
    head = architecture.head_operations(own_units.order(config))
    return STEM, *stages, *(operation.name for operation in head if operation.kind == "bn")


def check(config: "TrainConfig") -> None:
    """Raises ValueError if a configuration freezes a part that its network does not have.

    Code of the user's that has not been imported is not imported for that.
    """
    if not config.freeze or config.freeze == (ALL_BUT_HEAD,) or not own_units.is_known(config):
        return
    names = parts(config)
    for name in config.freeze:
        one_of("freeze", name, (*names, ALL_BUT_HEAD), f"of {', '.join(names)}, or {ALL_BUT_HEAD}")


def make_freezing(config: "TrainConfig", train_count: int, network: keras.Model) -> Freezing:
    """Makes the phases and factors of a run on train_count images."""
    learns = (STEM, "stage", HEAD_BN)
    everything = frozenset(part_of(x.name) for x in network.layers if x.name.startswith(learns))
    frozen = everything if config.freeze == (ALL_BUT_HEAD,) else frozenset(config.freeze or ())
    kept = {"none": frozenset(), "frozen": frozen, "all": everything}[config.freeze_bn]
    thaw_step = None
    if config.thaw_epoch is not None:
        thaw_step = math.ceil(config.thaw_epoch * train_count / config.global_batch_size)
    return Freezing(
        Phase(frozen, kept),
        Phase(kept_bn=everything if config.freeze_bn == "all" else frozenset()),
        thaw_step,
        tuple(
            (name, factor)
            for name, factor in _factors(
                (layer.name for layer in network.layers),
                config.layer_decay,
                config.head_lr_multiplier,
            )
            if factor != 1
        ),
    )


def _factors(layers: Iterable[str], decay: float, head: float):
    """Yields the factor on the learning rate of each layer that has one.

    With U units, unit u from 1 to U has decay ** (U + 1 - u), the stem decay ** (U + 1), the
    head 1: head_bn 1, logits the head's own factor.
    """
    levels, level = {}, 0
    for name in layers:
        level += name.startswith("stage")
        levels[name] = level
    for name, own in levels.items():
        if name.startswith(("stem_", "stage")):
            yield name, decay ** (level + 1 - own)
        elif name == LOGITS:
            yield name, head
