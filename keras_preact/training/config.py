"""What a training run is made of: every flag of train.py, checked in one place."""

import contextlib
import dataclasses
from typing import Any

from keras_preact.data.augmentation import AUGMENTATIONS
from keras_preact.layers import BLOCKS, ORDERS, PROJECTIONS, SHORTCUTS, Shortcut, shortcuts
from keras_preact.models import architectures
from keras_preact.support import records
from keras_preact.support.choices import one_of
from keras_preact.support.options import LARGEST, option
from keras_preact.support.text import shown
from keras_preact.training import validation

MODES = ("train", "evaluate")
STRATEGIES = ("auto", "one_device", "mirrored", "multi_worker")
PRECISIONS = ("auto", "float32", "mixed_bfloat16", "mixed_float16")
XLA = ("auto", "on", "off")
CHECKPOINTS = ("newest", "best")
ON_NAN = ("stop", "rollback")

# Two ways to say one thing, and two that exclude each other.
EXCLUSIVE = (
    ("resume", "overwrite"),
    ("train_steps", "train_epochs"),
    ("schedule_steps", "schedule_epochs"),
    ("drop_steps", "drop_epochs"),
)


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
    checkpoint_steps: int = option("run", "steps between two further checkpoints", 1000)
    keep_checkpoints: int = option("run", "newest checkpoints to keep; the best is kept too", 3)
    checkpoint: str = option("run", "which checkpoint to evaluate", "newest", CHECKPOINTS)
    max_runtime_minutes: float | None = option(
        "run", "save and stop before so many minutes have passed, with exit code 75"
    )
    on_nan: str = option(
        "run", "where the loss is not finite: stop, or rollback to a checkpoint", "stop", ON_NAN
    )
    max_rollbacks: int = option("run", "after which divergence ends the run all the same", 3)
    log_propagation_steps: int = option(
        "run", "steps between two records of signal and gradient in each unit; 0: none", 0
    )

    strategy: str = option("machine", "over which devices a batch is spread", "auto", STRATEGIES)
    devices: str | None = option(
        "machine", "a number, names such as GPU:0,GPU:1, or cpu; default: all GPUs, else the CPU"
    )
    precision: str = option("machine", "of convolutions; weights are float32", "auto", PRECISIONS)
    xla: str = option("machine", "compile a replica's forward and backward pass", "auto", XLA)
    sync_bn: bool = option(
        "machine", "BN statistics of the global batch, in place of each replica's", False
    )
    steps_per_loop: int = option("machine", "steps between two returns to Python", 1)
    gradient_accumulation_steps: int = option(
        "machine", "parts into which a replica's batch is cut to save memory", 1
    )
    cluster_timeout_seconds: int = option(
        "machine", "how long a worker waits at the start for the others", 600
    )
    deterministic: bool = option(
        "machine", "the same numbers, to the last bit, in each run on this machine", False
    )
    profile_steps: tuple[int, ...] | None = option(
        "machine", "first and last step of a TensorBoard profile, as in 10,20"
    )

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

    stochastic_depth_rate: float = option(
        "regularization", "chance to drop the last unit's residual; linear from 0 over depth", 0.0
    )
    label_smoothing: float = option(
        "regularization", "share of a label that is spread over all classes", 0.0
    )
    mixup_alpha: float = option(
        "regularization", "of the Beta distribution by which pairs of images are mixed", 0.0
    )
    ema_decay: float | None = option(
        "regularization", "evaluate and export averaged weights, of this decay a step"
    )
    recompute_bn_batches: int = option(
        "regularization", "batches over which BN statistics are computed anew to evaluate", 0
    )

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
        validation.check_numbers(self)
        validation.check_contradictions(self, EXCLUSIVE)
        if self.depth is not None:
            architectures.resolve(self.depth, self.stem, self.block, self.width_multiplier)
        self.make_shortcut()

    @property
    def folder(self) -> str:
        """run_dir, or its default."""
        return self.run_dir or f"runs/{self.dataset}_resnet{self.depth}"

    def make_shortcut(self) -> Shortcut:
        """The shortcut that `shortcut` and `shortcut_arguments` stand for."""
        arguments = {}
        for part in filter(None, self.shortcut_arguments.split(",")):
            name, _, text = part.partition("=")
            value = _number(text.strip())
            if value is None or not abs(value) <= LARGEST:
                raise ValueError(
                    "shortcut_arguments must be NAME=VALUE,NAME=VALUE, each value a number, True "
                    f"or False. Received: shortcut_arguments={shown(self.shortcut_arguments)}"
                )
            arguments[name.strip()] = value
        shortcuts.check_own_arguments(self.shortcut, arguments)
        return shortcuts.get(self.shortcut, **arguments)

    def require(self, *names: str) -> None:
        """Raises ValueError if one of the fields has not been given."""
        for name in names:
            if getattr(self, name) is None:
                raise ValueError(
                    f"{name} must be given, as every recipe in configs/ does: "
                    f"--flagfile=configs/digits_resnet20.flags. Received: {name}=None"
                )

    def architecture(self) -> dict[str, Any]:
        """The arguments beside depth, sizes and classes that `ResNetV2` and `describe` take."""
        names = ("stem", "block", "unit", "projection", "width_multiplier")
        return {**{name: getattr(self, name) for name in names}, "shortcut": self.make_shortcut()}

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
    def from_json(cls, values: Any, where: str = "") -> "TrainConfig":
        """The configuration that `to_json` gave, read back from a file.

        Args:
            values: as JSON gives them.
            where: they lie in the file, for the error.

        Raises:
            ValueError: if a field is unknown, as after a change of version, or its value is of
                another type.
        """
        values = records.typed(values, dict, where)
        known = {field.name for field in dataclasses.fields(cls)}
        if unknown := sorted(values.keys() - known):
            names = ", ".join(map(records.short, unknown[:5]))
            raise ValueError(f"Unknown configuration fields: {names}")
        return records.typed(values, cls, where)


def _number(text):
    """The number that a text spells, True and False being such; None where it spells none."""
    if text in ("True", "False"):
        return text == "True"
    for kind in (int, float):
        with contextlib.suppress(ValueError):
            return kind(text)
    return None
