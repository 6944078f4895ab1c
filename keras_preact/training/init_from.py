"""Begins a run with the weights, the architecture and the preprocessing of another network."""

import dataclasses
from collections.abc import Collection, Sequence
from typing import Any

import keras
import numpy as np

from keras_preact.layers import ORDERS, SHORTCUTS, ActivationOrder, Preprocessing, shortcuts
from keras_preact.models import Network, architectures, arguments_of, preprocessing_of
from keras_preact.models.channels import adapt_channels
from keras_preact.models.foreign import convert
from keras_preact.support.console import say
from keras_preact.support.paths import usable
from keras_preact.training import own_units
from keras_preact.training.config import TrainConfig
from keras_preact.training.networks import load_folder, run_of

# Fields that the source decides where they are not given.
ARCHITECTURE = (
    *("depth", "stem", "block", "unit", "shortcut", "shortcut_arguments", "projection"),
    *("width_multiplier", "layout"),
)
_STEM_KERNEL = "stem_conv/kernel"
_LOGITS = "logits/"
_NAMED = 5


@dataclasses.dataclass(frozen=True)
class Origin:
    """A network to begin with.

    Args:
        network: made by a builder of this package.
        where: it comes from, for people.
        config: of the run that it comes from; None of a network in a file.
    """

    network: keras.Model
    where: str
    config: TrainConfig | None = None

    @property
    def preprocessing(self) -> Preprocessing | None:
        """The preprocessing that the network carries."""
        return preprocessing_of(self.network)

    def complete(self, config: TrainConfig, given: Collection[str]) -> TrainConfig:
        """Returns a configuration of the network's architecture.

        Args:
            config: of the run.
            given: fields that the user set.

        Raises:
            ValueError: if a field that was given says otherwise, or no fields can say what the
                network is.
        """
        own = self._fields()
        asked = {name: getattr(config, name) for name in ARCHITECTURE if name in given}
        contradicting = [
            f"{name}={value!r}, but {own[name]!r} there"
            for name, value in asked.items()
            if not _agree(name, value, own)
        ]
        if contradicting:
            raise ValueError(
                f"The architecture must be that of the network to begin with, {self.where}: leave "
                f"the flags out. Received: {'; '.join(contradicting)}"
            )
        return dataclasses.replace(config, **own)

    def _fields(self) -> dict[str, Any]:
        if self.config is not None and own_units.names_code(self.config):
            return {name: getattr(self.config, name) for name in ARCHITECTURE}
        arguments = arguments_of(self.network)
        if arguments is None:
            raise ValueError(
                f"init_from must be a network that a builder of keras_preact made, of units that "
                f"have a name. Received: {self.where}, which does not know its architecture"
            )
        fields = {name: arguments[name] for name in ARCHITECTURE if name in arguments}
        fields["unit"] = self._name_of_order(fields["unit"])
        return fields | self._name_of_shortcut(fields["shortcut"])

    def _name_of_order(self, unit: str | ActivationOrder) -> str:
        names = [name for name, order in ORDERS.items() if unit in (name, order)]
        if not names:
            raise self._unspeakable("an order of BN and ReLU")
        return names[0]

    def _name_of_shortcut(self, shortcut) -> dict[str, str]:
        template = shortcuts.get(shortcut)
        for name, kind in SHORTCUTS.items():
            if type(template) is kind:
                own = shortcuts.own_arguments(template)
                defaults = shortcuts.own_arguments(shortcuts.get(name))
                text = ",".join(f"{k}={v}" for k, v in own.items() if v != defaults[k])
                return {"shortcut": name, "shortcut_arguments": text}
        raise self._unspeakable("a shortcut")

    def _unspeakable(self, what):
        return ValueError(
            f"init_from must be a network whose architecture flags can say. Received: "
            f"{self.where}, which has {what} of its own"
        )

    def begin(self, network: Network) -> str:
        """Copies the weights and BN statistics to the network of a run.

        The head is copied where it tells the same classes in the same order; where the source
        does not know its classes, where it tells as many.

        Args:
            network: new, of the source's architecture, with the preprocessing of the run.

        Returns:
            A line on what was copied, for people.

        Raises:
            ValueError: if the weights are not those of the architecture, or not finite.
        """
        keeps, why = self._keeps_head(network.preprocessing.class_names)
        source = {path: np.asarray(v) for path, v in _numbers(self.network).items()}
        target = _numbers(network)
        wanted = [path for path in target if keeps or not path.startswith(_LOGITS)]
        values = {path: source[path] for path in wanted if path in source}
        folded = ""
        if _STEM_KERNEL in values:
            kernel, channels = values[_STEM_KERNEL], target[_STEM_KERNEL].shape[2]
            if kernel.shape[2] != channels:
                values[_STEM_KERNEL] = adapt_channels(kernel, channels)
                folded = f"; stem for {channels} channels instead of {kernel.shape[2]}"
        self._check(wanted, values, target)
        for path, value in values.items():
            target[path].assign(value)
        head = f"new head: {why}; " if not keeps else ""
        return f"{head}{len(values)} of {len(target)} variables from {self.where}{folded}"

    def _keeps_head(self, wanted):
        """Whether to keep the head for some classes, and why not."""
        known = self.preprocessing
        names = known.class_names if known else ()
        logits = [v for v in self.network.variables if v.path == f"{_LOGITS}kernel"]
        if not logits:
            return False, f"{len(wanted)} classes, as the network had none"
        count = int(logits[0].shape[-1])
        if count != len(wanted):
            return False, f"{len(wanted)} classes instead of {count}"
        if not names or names == wanted:
            return True, ""
        if sorted(names) == sorted(wanted):
            return False, f"the same {count} classes in another order"
        return False, f"{count} other classes"

    def check_classes(self, class_names: Sequence[str]) -> None:
        """Raises ValueError if the network does not tell these classes, in this order."""
        keeps, why = self._keeps_head(tuple(class_names))
        if not keeps:
            raise ValueError(
                "The classes of the data must be those of the network, in the same order. "
                f"Received: {self.where}, which would need a new head: {why}"
            )

    def _check(self, wanted, values, target):
        wrong = [
            f"{path}: {values[path].shape if path in values else 'absent'} there, "
            f"{tuple(target[path].shape)} here"
            for path in wanted
            if path not in values or values[path].shape != tuple(target[path].shape)
        ]
        if wrong:
            more = f", and {len(wrong) - _NAMED} more" if len(wrong) > _NAMED else ""
            raise ValueError(
                f"The weights must fit the network. {self.where} differs in "
                f"{'; '.join(wrong[:_NAMED])}{more}"
            )
        if broken := [path for path in wanted if not np.isfinite(values[path]).all()]:
            raise ValueError(
                f"Weights to begin with must be finite. Received: {self.where}, whose {broken[0]} "
                "is not"
            )


def load(source: str, config: TrainConfig | None = None, given: Collection[str] = ()) -> Origin:
    """Reads a network to begin with.

    Args:
        source: folder of a run, whose newest checkpoint is read; of one of its checkpoints,
            such as RUN/checkpoints/best/step-400; or a file that `models.foreign.convert` reads.
        config: tells the architecture of a `.weights.h5` file, which does not.
        given: fields of it that the user set.

    Raises:
        ValueError: if it is none of these, or damaged.
    """
    path = usable(source, "init_from")
    if not path.exists():
        raise ValueError(
            "init_from must be the folder of a run or of a checkpoint, or a file. "
            f"Received: {path}, which is not there"
        )
    if not path.is_dir():
        told = str(path).endswith(".weights.h5") and config is not None
        arguments = _arguments(config, given) if told else {}
        return Origin(convert(str(path), tell=say, **arguments), str(path))
    return Origin(load_folder(path), str(path), run_of(path).read()[0])


def _arguments(config, given):
    """The architecture that the user gave, as arguments of a builder."""
    arguments = {**config.architecture(), "depth": config.depth}
    own = {name for name in ARCHITECTURE if name in given}
    if "shortcut_arguments" in own:
        own.add("shortcut")
    return {name: value for name, value in arguments.items() if name in own}


def _agree(name, value, own):
    """Whether a field that was given says the same as the source's own."""
    if name in own_units.FIELDS:
        return own_units.identity(value) == own_units.identity(own[name])
    if name == "shortcut_arguments":
        return _shortcut(own["shortcut"], value) == _shortcut(own["shortcut"], own[name])
    if name == "projection":
        architecture = architectures.resolve(own["depth"], own["stem"], own["block"])
        return architecture.projection(value) == architecture.projection(own[name])
    return value == own[name]


def _shortcut(name, arguments):
    config = TrainConfig(shortcut=name, shortcut_arguments=arguments).make_shortcut().get_config()
    return {**config, "name": None}


def _numbers(network):
    """The weights and statistics of a network, by path."""
    return {v.path: v for v in network.variables if v.dtype == "float32"}
