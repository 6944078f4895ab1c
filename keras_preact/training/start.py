"""What a run takes from another network, from a rule, or from its own record, as it starts."""

import dataclasses
from collections.abc import Collection

from keras_preact.data import Dataset, datasets
from keras_preact.data.sources import Encoded
from keras_preact.layers import Preprocessing
from keras_preact.models import Network
from keras_preact.training import fine_tuning_rule, init_from, own_units
from keras_preact.training.checkpoints.folder import listed
from keras_preact.training.config import TrainConfig
from keras_preact.training.config_rules import EXCLUSIVE
from keras_preact.training.run_folder import RunFolder

# Fields that a network to begin with, the rule or the data decide where they are not given.
_DECIDED = (
    *init_from.ARCHITECTURE,
    *("image_size", "schedule_rule", "schedule_steps", "drop_steps", "warmup_steps"),
    *("learning_rate", "mixup_alpha"),
)


class Start:
    """The start of a run whose configuration leaves fields to others; call the methods in order.

    Args:
        config: of the run.
        given: names of the fields that the user set.

    Attributes:
        config: complete at the end; the run's record has it, so that nothing is decided again.
        like: preprocessing to load the data with; None to measure them.
        notes: lines for people.
    """

    def __init__(self, config: TrainConfig, given: Collection[str]):
        self.config, self._given = config, frozenset(given)
        self.like: Preprocessing | None = None
        self.notes: list[str] = []
        self._goes_on, self._origin = False, None

    def go_on(self, run_folder: RunFolder) -> None:
        """Takes what was decided before from the record of a run that goes on."""
        if not (self.config.resume and run_folder.holds_a_run()):
            # A file that is not there has been left to the folder until now.
            own_units.of(self.config)
            return
        self._goes_on = True
        self.config, notes = run_folder.with_own_code(self.config)
        self.notes += notes
        recorded, info = run_folder.read()
        if self.config.init_from != recorded.init_from:
            if self.config.init_from is not None:
                self.notes.append(
                    f"init_from={self.config.init_from} is left out: the run goes on with its own "
                    "weights."
                )
            self.config = dataclasses.replace(self.config, init_from=recorded.init_from)
        if recorded.init_from is None and recorded.schedule_rule is None:
            return
        excluded = {
            other for pair in EXCLUSIVE for name, other in (pair, pair[::-1]) if name in self._given
        }
        known = {
            name: getattr(recorded, name)
            for name in _DECIDED
            if name not in self._given and name not in excluded
        }
        self.config = dataclasses.replace(self.config, **known)
        if recorded.init_from is not None:
            # Its mean and deviation are those of another data set.
            self.like = info.preprocessing

    def read_origin(self, run_folder: RunFolder) -> None:
        """Reads the network to begin with, if there is one, and decides what precedes the data.

        Raises:
            ValueError: if the network cannot be read, or contradicts what was given.
        """
        config = self.config
        # A run that has saved needs its origin no more, which may be gone.
        if config.init_from and not (self._goes_on and listed(run_folder.checkpoints)):
            given = init_from.ARCHITECTURE if self._goes_on else self._given
            self._origin = init_from.load(config.init_from, config, given)
            self.config = config = self._origin.complete(config, given)
            self.like = self.like or self._origin.preprocessing
        of_any_size = config.dataset in ("folder", "csv")
        if config.schedule_rule and config.image_size is None and of_any_size:
            size = fine_tuning_rule.choose_size(
                datasets.median_pixels(config.dataset, config.data_dir),
                self.like and self.like.image_shape[0],
            )
            self.config = dataclasses.replace(config, image_size=size)

    def know_data(self, data: Dataset) -> None:
        """Decides what depends on the data."""
        config = self.config
        if self._goes_on:
            return
        if config.init_from and isinstance(data.train_source, Encoded):
            size, *_ = data.info.image_shape
            self.config = config = dataclasses.replace(config, image_size=size)
        if config.freeze:
            until = f"epoch {config.thaw_epoch:g}" if config.thaw_epoch else "the end"
            self.notes.append(f"Frozen until {until}: {', '.join(config.freeze)}")
        if config.schedule_rule:
            self.config, choice = fine_tuning_rule.complete(
                config, self._given, data.info.train_count
            )
            self.notes.append(_told(self.config, choice, data.info.train_count))

    def check_classes(self, data: Dataset) -> None:
        """Raises ValueError if the network to begin with does not tell the classes of the data."""
        self._origin.check_classes(data.info.class_names)

    def begin(self, network: Network) -> None:
        """Gives a new network the weights to begin with, if there are any."""
        if self._origin is not None:
            self.notes.append(self._origin.begin(network))
            self._origin = None


def changed_fields(config: TrainConfig) -> frozenset[str]:
    """Returns the names of the fields that differ from their defaults."""
    return frozenset(
        field.name
        for field in dataclasses.fields(config)
        if getattr(config, field.name) != field.default
    )


def _told(config, choice, images):
    length = config.schedule_steps or f"{config.schedule_epochs:g} epochs, in"
    rate = config.resolved().learning_rate
    if config.schedule == "steps":
        where = ", ".join(map(str, config.drop_steps or config.drop_epochs or ["no step"]))
        fall = f"drops at {where}"
    else:
        fall = f"schedule {config.schedule}"
    size = f", images of {config.image_size} pixels" if config.image_size else ""
    return (
        f"schedule_rule={config.schedule_rule}: {images:,} images are a {choice.task} task: "
        f"{length} steps of {config.global_batch_size}, learning rate {rate:g}, "
        f"{fall}, mixup {config.mixup_alpha:g}{size}"
    )
