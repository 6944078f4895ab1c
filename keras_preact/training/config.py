"""What a training run is made of: every flag of train.py, checked in one place."""

import ast
import dataclasses
import math
from typing import Any

from keras_preact.data.augmentation import AUGMENTATIONS
from keras_preact.layers import BLOCKS, ORDERS, PROJECTIONS, SHORTCUTS, shortcuts
from keras_preact.layers.lookup import one_of
from keras_preact.models import architectures

# Of what is counted: the range of 32 bits.
LARGEST = 2**31 - 1

MODES = ("train", "evaluate")
CHECKPOINTS = ("newest", "best")

# Two ways to say one thing, and two that exclude each other.
EXCLUSIVE = (
    ("resume", "overwrite"),
    ("train_steps", "train_epochs"),
    ("schedule_steps", "schedule_epochs"),
    ("drop_steps", "drop_epochs"),
)


def option(group: str, help_text: str, default: Any = None, choices=None) -> Any:
    """A field of a configuration that becomes a flag: its group, help text and choices."""
    metadata = {"group": group, "help": help_text, "choices": choices and tuple(choices)}
    return dataclasses.field(default=default, metadata=metadata)


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """One training run. The fields are train.py's flags; `metadata["help"]` says what they mean.

    Raises:
        ValueError: if a value is outside its rule or two contradict each other.
    """

    run_dir: str | None = option("run", "folder of the run; default runs/DATASET_resnetDEPTH")
    mode: str = option("run", "train, or evaluate the run in run_dir", "train", MODES)
    resume: bool = option(
        "run", "continue the run in run_dir from its newest checkpoint, where it has one", False
    )
    overwrite: bool = option(
        "run", "replace the run in run_dir by a new one; its exports stay", False
    )
    seed: int = option("run", "decides on initial weights, data order and augmentation", 0)
    log_steps: int = option("run", "steps between two lines of the log", 50)
    eval_epochs: int = option("run", "epochs between two evaluations, each with a checkpoint", 1)
    checkpoint_steps: int | None = option("run", "steps between two further checkpoints")
    keep_checkpoints: int = option("run", "newest checkpoints to keep; the best is kept too", 3)
    checkpoint: str = option("run", "which checkpoint to evaluate", "newest", CHECKPOINTS)

    dataset: str | None = option(
        "data", "digits, synthetic, folder, or a name in tensorflow-datasets such as cifar10"
    )
    data_dir: str | None = option(
        "data", "the folder of images, or of tensorflow-datasets (~/tensorflow_datasets)"
    )
    image_size: int | None = option(
        "data", "height and width in pixels, where images have various sizes; default 224"
    )
    augmentation: str | None = option(
        "data", "augmentation; default: what suits the data set", None, AUGMENTATIONS
    )
    skip_bad_images: bool = option("data", "leave out damaged files of a folder", False)
    global_batch_size: int = option("data", "images in a step, over all devices", 128)

    depth: int | None = option(
        "model", "weighted layers: 18, 34, 50, 101, 152, 200 (ImageNet); 6n+2, 9n+2, 3n+2 (CIFAR)"
    )
    unit: str = option("model", "order of BN and ReLU", "full_preactivation", ORDERS)
    shortcut: str = option("model", "kind of shortcut; none: a plain net", "identity", SHORTCUTS)
    shortcut_arguments: str = option(
        "model", "of the shortcut, as in initial_bias=-3 or shortcut_scale=0.5,residual_scale=1", ""
    )
    block: str | None = option("model", "kind of unit; default: by depth", None, BLOCKS)
    projection: str | None = option(
        "model", "where dimensions change; default: the paper's choice", None, PROJECTIONS
    )
    stem: str | None = option("model", "default: by depth", None, architectures.STEMS)
    width_multiplier: float = option("model", "multiplies the filters of every convolution", 1.0)

    learning_rate: float = option("optimization", "after the warm-up, before the first drop", 0.1)
    momentum: float = option("optimization", "of SGD", 0.9)
    weight_decay: float = option("optimization", "coupled: times the weight, on its gradient", 1e-4)
    decay_bn: bool = option("optimization", "whether gamma and beta of BN decay too", True)
    warmup_steps: int = option("optimization", "first steps, at warmup_learning_rate", 400)
    warmup_learning_rate: float = option("optimization", "of the warm-up", 0.01)
    drop_factor: float = option("optimization", "multiplies the learning rate at a drop", 0.1)
    drop_steps: tuple[int, ...] | None = option(
        "optimization", "steps of the drops; default: at 1/2 and 3/4 of the schedule"
    )
    drop_epochs: tuple[float, ...] | None = option("optimization", "the same in epochs")
    schedule_steps: int | None = option(
        "optimization", "length of the whole schedule; default: the paper's 64000"
    )
    schedule_epochs: float | None = option("optimization", "the same in epochs")
    train_steps: int | None = option("optimization", "stop after so many; default: the schedule's")
    train_epochs: float | None = option("optimization", "the same in epochs")
    scale_schedule: bool = option(
        "optimization", "shorten the schedule to train_steps or train_epochs, in proportion", False
    )

    def __post_init__(self):
        for field in dataclasses.fields(self):
            choices, value = field.metadata["choices"], getattr(self, field.name)
            if choices and value is not None:
                one_of(field.name, value, choices)
        self._check_numbers()
        self._check_contradictions()
        if self.depth is not None:
            architectures.resolve(self.depth, self.stem, self.block, self.width_multiplier)
        self.make_shortcut()

    def _check_numbers(self):
        above_zero = (
            *("log_steps", "eval_epochs", "checkpoint_steps", "keep_checkpoints", "image_size"),
            *("global_batch_size", "width_multiplier", "learning_rate", "warmup_learning_rate"),
            *("drop_factor", "schedule_steps", "schedule_epochs", "train_steps", "train_epochs"),
        )
        at_least_zero = ("seed", "momentum", "weight_decay", "warmup_steps")
        for name in (*above_zero, *at_least_zero):
            value = getattr(self, name)
            if value is None:
                continue
            counts = isinstance(value, int) or name.endswith("epochs")
            large_enough = value > 0 if name in above_zero else value >= 0
            if not (large_enough and (value <= LARGEST if counts else math.isfinite(value))):
                least = "above 0" if name in above_zero else "at least 0"
                most = f"at most {LARGEST}" if counts else "finite"
                raise ValueError(f"{name} must be {least} and {most}. Received: {name}={value}")
        if self.momentum >= 1:
            raise ValueError(f"momentum must be below 1. Received: momentum={self.momentum}")
        for name in ("drop_steps", "drop_epochs"):
            values = getattr(self, name) or ()
            in_range = all(0 < value <= LARGEST for value in values)
            if not in_range or list(values) != sorted(set(values)):
                raise ValueError(
                    f"{name} must be ascending, above 0 and at most {LARGEST}. "
                    f"Received: {name}={list(values)}"
                )

    def _check_contradictions(self):
        for first, second in EXCLUSIVE:
            values = getattr(self, first), getattr(self, second)
            if all(value not in (None, False) for value in values):
                raise ValueError(
                    f"{first} and {second} contradict each other: give one of them. "
                    f"Received: {first}={values[0]}, {second}={values[1]}"
                )
        if self.scale_schedule and self.train_steps is None and self.train_epochs is None:
            raise ValueError(
                "scale_schedule needs the length to scale to: train_steps or train_epochs."
            )
        if self.mode == "evaluate" and (self.resume or self.overwrite):
            raise ValueError(
                "mode='evaluate' leaves the run as it is. "
                f"Received: resume={self.resume}, overwrite={self.overwrite}"
            )
        if self.skip_bad_images and self.dataset not in (None, "folder"):
            raise ValueError(
                "skip_bad_images is for dataset='folder' alone. "
                f"Received: skip_bad_images=True, dataset={self.dataset!r}"
            )
        if self.shortcut == "none" and self.projection is not None:
            raise ValueError(
                "shortcut='none' has no projection. Received: "
                f"shortcut='none', projection={self.projection!r}"
            )

    @property
    def folder(self) -> str:
        """run_dir, or its default."""
        return self.run_dir or f"runs/{self.dataset}_resnet{self.depth}"

    def make_shortcut(self) -> shortcuts.Shortcut:
        """The shortcut that `shortcut` and `shortcut_arguments` stand for."""
        arguments = {}
        for part in filter(None, self.shortcut_arguments.split(",")):
            name, _, text = part.partition("=")
            try:
                value = ast.literal_eval(text.strip())
            except (SyntaxError, ValueError):
                value = None
            if not (isinstance(value, int | float) and abs(value) <= LARGEST):
                raise ValueError(
                    "shortcut_arguments must be NAME=VALUE,NAME=VALUE, each value a number, True "
                    f"or False. Received: shortcut_arguments={self.shortcut_arguments!r}"
                )
            arguments[name.strip()] = value
        return shortcuts.get(self.shortcut, **arguments)

    def require(self, *names: str) -> None:
        """Raises ValueError if one of the fields has not been given."""
        for name in names:
            if getattr(self, name) is None:
                raise ValueError(
                    f"{name} must be given, as every recipe in configs/ does: "
                    f"--flagfile=configs/digits_resnet20.flags. Received: {name}=None"
                )

    def updated(self, **given: Any) -> "TrainConfig":
        """A copy with other values; a given field unsets the one it excludes."""
        unset = {
            excluded: None
            for pair in EXCLUSIVE[1:]
            for name, excluded in (pair, pair[::-1])
            if name in given
        }
        return dataclasses.replace(self, **{**unset, **given})

    def to_json(self) -> dict:
        """The fields as JSON can hold them."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, values: dict) -> "TrainConfig":
        """The configuration that `to_json` gave, read back from a file.

        Raises:
            ValueError: if a field is unknown, as after a change of version.
        """
        known = {field.name for field in dataclasses.fields(cls)}
        unknown = sorted(set(values) - known)
        if unknown:
            raise ValueError(f"Unknown configuration fields: {', '.join(unknown)}")
        tuples = {name: tuple(v) for name, v in values.items() if isinstance(v, list)}
        return cls(**{**values, **tuples})
