"""The configuration of a run: the flags of train.py, and their rules."""

import dataclasses
from typing import Any

from keras_preact.data import augmentation_text
from keras_preact.data.sampling import SAMPLINGS
from keras_preact.layers import BLOCKS, LAYOUTS, ORDERS, PROJECTIONS, SHORTCUTS, Shortcut
from keras_preact.models import architectures
from keras_preact.support import options, records
from keras_preact.support.options import option
from keras_preact.training import config_rules, own_units
from keras_preact.training.config_rules import EXCLUSIVE
from keras_preact.training.steps import freezing
from keras_preact.training.steps.loss import LOSSES
from keras_preact.training.steps.scores import MONITORS

MODES = ("train", "evaluate")
STRATEGIES = ("auto", "one_device", "mirrored", "multi_worker")
PRECISIONS = ("auto", "float32", "mixed_bfloat16", "mixed_float16")
XLA = ("auto", "on", "off")
REMAT = ("none", "unit", "group", "auto")
CHECKPOINTS = ("newest", "best")
ON_NAN = ("stop", "rollback")
FREEZE_BN = ("none", "frozen", "all")
SCHEDULE_RULES = ("bit",)
OPTIMIZERS = ("sgd", "adamw", "lamb")
MOMENTUM_FORMS = ("caffe", "torch")
SCHEDULES = ("steps", "cosine", "linear", "constant")
WARMUPS = ("constant", "linear")
TRACKERS = ("wandb", "mlflow")


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """The configuration of a run. Each field is a flag of train.py, with its help in `metadata`.

    Raises:
        ValueError: if a value breaks its rule, or two values contradict each other.
    """

    run_dir: str | None = option("run", "folder of the run; default: runs/DATASET_resnetDEPTH")
    mode: str = option(
        "run", "train a network, or evaluate that of run_dir, or of init_from", "train", MODES
    )
    resume: bool = option(
        "run", "continue the run in run_dir from its newest checkpoint, if there is one", False
    )
    overwrite: bool = option(
        "run", "replace the run in run_dir by a new one; its exports are kept", False
    )
    seed: int = option("run", "seed of initial weights, data order and augmentation", 0)
    log_steps: int = option("run", "steps between log lines", 50)
    eval_epochs: int = option("run", "epochs between evaluations; each saves a checkpoint", 1)
    checkpoint_steps: int = option(
        "run", "steps between checkpoints beside those of evaluations", 1000
    )
    keep_checkpoints: int = option(
        "run", "number of newest checkpoints to keep, beside the best one", 3
    )
    checkpoint: str = option("run", "checkpoint to evaluate", "newest", CHECKPOINTS)
    monitor: str | None = option(
        "run",
        "figure of the evaluation that the best checkpoint has; default: accuracy, "
        "mean_average_precision for images with several labels",
        None,
        MONITORS,
    )
    early_stopping_epochs: int | None = option(
        "run", "epochs without a better evaluation after which to stop; default: train to the end"
    )
    log_to: str | None = option(
        "run", "package that gets configuration and metrics, too", None, TRACKERS
    )
    max_runtime_minutes: float | None = option(
        "run", "time limit: save and stop before it, with exit code 75"
    )
    on_nan: str = option(
        "run",
        "if the loss is not finite: stop, or rollback to the newest checkpoint",
        "stop",
        ON_NAN,
    )
    max_rollbacks: int = option("run", "rollbacks before divergence ends the run", 3)
    log_propagation_steps: int = option(
        "run", "steps between records of signal and gradient in each unit; 0: none", 0
    )

    strategy: str = option("machine", "how a batch is spread over devices", "auto", STRATEGIES)
    devices: str | None = option(
        "machine",
        "number of devices, names as in GPU:0,GPU:1 or CPU:0,CPU:1, or cpu; default: all GPUs, "
        "else the CPU",
    )
    precision: str = option(
        "machine", "dtype policy of the layers; weights stay float32", "auto", PRECISIONS
    )
    xla: str = option("machine", "compile the forward and backward pass with XLA", "auto", XLA)
    remat: str = option(
        "machine",
        "what a training step computes twice to save memory: none; unit: every residual unit from "
        "its input; group: every remat_units units from the input of the first; auto: groups near "
        "the square root of the number of equal units in a row",
        "none",
        REMAT,
    )
    remat_units: int | None = option("machine", "units of a group of --remat=group")
    unit_loops: str = option(
        "machine",
        "compute equal residual units in a row as one loop, so that a deep net starts as fast as "
        "a shallow one",
        "auto",
        XLA,
    )
    sync_bn: bool = option(
        "machine", "normalize with the global batch's BN statistics, not each replica's", False
    )
    steps_per_loop: int | None = option(
        "machine", "steps taken in one launch, at most 256; default: what two seconds hold"
    )
    gradient_accumulation_steps: int = option(
        "machine", "number of parts of a replica's batch, computed in turn to save memory", 1
    )
    cluster_timeout_seconds: int = option(
        "machine", "how long a worker waits for the others at the start", 600
    )
    deterministic: bool = option(
        "machine", "make runs on this machine repeatable to the last bit", False
    )
    profile_steps: tuple[int, ...] | None = option(
        "machine", "first and last step of a profile for TensorBoard, as in 10,20"
    )

    dataset: str | None = option(
        "data",
        "digits, synthetic, folder, csv, or a name in tensorflow-datasets, such as cifar10",
    )
    data_dir: str | None = option(
        "data",
        "folder of images, CSV file of their paths and labels, or folder of tensorflow-datasets "
        "(default: ~/tensorflow_datasets)",
    )
    image_size: int | None = option(
        "data", "height and width in pixels, for data sets of various sizes; default: 224"
    )
    crop_ratio: float | None = option(
        "data",
        "part of each side that evaluation crops, for data sets of various sizes; default: 0.875",
    )
    augmentation: str | None = option("data", f"{augmentation_text.HELP}; default: the data set's")
    split: tuple[int, ...] | None = option(
        "data",
        "percentages of images for training, validation and test, as in 80,10,10 or 80,20, where "
        "a folder or a CSV file leaves the split open; default: 80,10,10",
    )
    validation_images: int | None = option(
        "data",
        "training images to evaluate on, as in 5000 of cifar10; the data set's own images for "
        "evaluation are then tested on once, at the end; default: none",
    )
    sampling: str = option(
        "data",
        "how often training takes an image of each class: as often as there are images, equally "
        "often, or in proportion to the square root of their number",
        "natural",
        SAMPLINGS,
    )
    skip_bad_images: bool = option("data", "leave damaged files of a folder or a CSV out", False)
    global_batch_size: int = option("data", "images in a step, on all devices together", 128)

    depth: int | None = option(
        "model", "weighted layers: 18, 34, 50, 101, 152, 200 (ImageNet); 6n+2, 9n+2, 3n+2 (CIFAR)"
    )
    unit: str = option(
        "model", "order of BN and ReLU", "full_preactivation", ORDERS, own=own_units.OWN
    )
    shortcut: str = option(
        "model",
        "kind of shortcut; none: a plain network",
        "identity",
        SHORTCUTS,
        own=own_units.OWN,
    )
    shortcut_arguments: str = option(
        "model", "arguments of the shortcut, as in shortcut_scale=0.5,residual_scale=1", ""
    )
    block: str | None = option("model", "convolutions of a unit; default: by depth", None, BLOCKS)
    projection: str | None = option(
        "model", "shortcut where dimensions change; default: the paper's", None, PROJECTIONS
    )
    stem: str | None = option("model", "first layers; default: by depth", None, architectures.STEMS)
    width_multiplier: float = option("model", "factor on the filters of every convolution", 1.0)
    layout: str = option(
        "model",
        "strides, biases and first shortcut as in the nets of",
        "paper",
        LAYOUTS,
    )

    init_from: str | None = option(
        "fine-tuning",
        "run, checkpoint or file of a network to begin with; gives weights, architecture and "
        "preprocessing",
    )
    freeze: tuple[str, ...] | None = option(
        "fine-tuning", "parts that do not learn: of stem, stage1, ..., head_bn; or all_but_head"
    )
    thaw_epoch: float | None = option(
        "fine-tuning", "epoch from which they learn, too; default: never"
    )
    freeze_bn: str = option(
        "fine-tuning",
        "BN that normalizes with its moving statistics and keeps them: none, that of frozen parts, "
        "or all",
        "frozen",
        FREEZE_BN,
    )
    head_lr_multiplier: float = option("fine-tuning", "factor on the learning rate of logits", 1.0)
    layer_decay: float = option(
        "fine-tuning", "factor on the learning rate of each unit, relative to the one above it", 1.0
    )
    schedule_rule: str | None = option(
        "fine-tuning",
        "chooses what is not given of schedule, learning_rate, mixup_alpha and image_size by "
        "number and size of the images",
        None,
        SCHEDULE_RULES,
    )

    loss: str | None = option(
        "loss",
        "loss to train with; default: cross_entropy, binary_cross_entropy for images with several "
        "labels",
        None,
        LOSSES,
    )
    bce_target_threshold: float | None = option(
        "loss",
        "of binary_cross_entropy: smoothed or mixed targets above it become 1, others 0; default: "
        "as they are",
    )
    class_weights: str | None = option(
        "loss",
        "weights of the classes: auto, by their numbers of training images, or a JSON or CSV "
        "file of names and weights; default: all alike",
    )

    stochastic_depth_rate: float = option(
        "regularization", "probability of dropping the last residual; linear in depth, from 0", 0.0
    )
    label_smoothing: float = option(
        "regularization", "share of each label spread over all classes", 0.0
    )
    mixup_alpha: float = option(
        "regularization", "parameter of mixup's Beta distribution; 0: no mixup", 0.0
    )
    cutmix_alpha: float = option(
        "regularization",
        "parameter of CutMix's Beta distribution; 0: no CutMix; with mixup, half the batches each",
        0.0,
    )
    ema_decay: float | None = option(
        "regularization",
        "decay per step of averaged weights, to evaluate and export; default: none",
    )
    recompute_bn_batches: int = option(
        "regularization", "batches from which BN statistics are recomputed to evaluate; 0: none", 0
    )

    optimizer: str = option("optimization", "what changes the weights", "sgd", OPTIMIZERS)
    learning_rate: float | None = option(
        "optimization",
        "after the warm-up; default: 0.1; 0.001 for adamw, 0.005 for lamb",
    )
    momentum: float = option("optimization", "momentum of SGD", 0.9)
    nesterov: bool = option("optimization", "Nesterov's momentum, for SGD", False)
    momentum_form: str | None = option(
        "optimization",
        "SGD's velocity holds gradients times their rates (caffe) or gradients (torch); default: "
        "caffe for schedule=steps, as in the paper, else torch",
        None,
        MOMENTUM_FORMS,
    )
    beta1: float | None = option(
        "optimization", "decay of the mean of gradients, for adamw and lamb; default: 0.9"
    )
    beta2: float | None = option(
        "optimization", "decay of the mean of squared gradients; default: 0.999"
    )
    epsilon: float | None = option(
        "optimization", "added to their root; default: 1e-8 for adamw, 1e-6 for lamb"
    )
    clip_norm: float | None = option(
        "optimization", "largest global norm of the gradient; default: not clipped"
    )
    weight_decay: float | None = option(
        "optimization",
        "sgd adds it to the gradient, times the weight; adamw and lamb to their change; default: "
        "1e-4; 0.05 for adamw, 0.01 for lamb",
    )
    decay_bn: bool | None = option(
        "optimization",
        "decay gamma and beta of BN, too, and for adamw and lamb biases; default: only for sgd",
    )
    warmup: str | None = option(
        "optimization",
        "rate of the first steps; default: constant for sgd with schedule=steps, else linear",
        None,
        WARMUPS,
    )
    warmup_steps: int | None = option(
        "optimization",
        "number of these steps; default: 400 if constant, 1/20 of the schedule if linear",
    )
    warmup_epochs: float | None = option("optimization", "warmup_steps in epochs")
    warmup_learning_rate: float | None = option(
        "optimization",
        "of the warm-up, if constant (default: 0.01), or of the first step, if linear (default: "
        "on the line from 0)",
    )
    schedule: str = option("optimization", "learning rate after the warm-up", "steps", SCHEDULES)
    final_learning_rate: float | None = option(
        "optimization", "at the end of schedule=cosine or linear; default: 0"
    )
    drop_factor: float = option("optimization", "factor on the learning rate at each drop", 0.1)
    drop_steps: tuple[int, ...] | None = option(
        "optimization", "steps at which it drops; default: 1/2 and 3/4 of the schedule"
    )
    drop_epochs: tuple[float, ...] | None = option("optimization", "drop_steps in epochs")
    schedule_steps: int | None = option(
        "optimization",
        "length of the schedule; default: the paper's 64000; but of training, where it is given, "
        "unless schedule=steps",
    )
    schedule_epochs: float | None = option("optimization", "schedule_steps in epochs")
    train_steps: int | None = option("optimization", "length of training; default: schedule_steps")
    train_epochs: float | None = option("optimization", "train_steps in epochs")
    scale_schedule: bool = option(
        "optimization", "scale the schedule to train_steps or train_epochs", False
    )

    def __post_init__(self):
        options.check_choices(self)
        for name in own_units.FIELDS:
            # A run that goes on has a copy of code that may be gone.
            goes_on = self.resume or self.mode == "evaluate"
            object.__setattr__(self, name, own_units.pinned(name, getattr(self, name), goes_on))
        if self.augmentation is not None:
            augmentation_text.parse(self.augmentation)
        config_rules.check_numbers(self)
        config_rules.check_contradictions(self)
        config_rules.check_optimization(self)
        config_rules.check_loss(self)
        config_rules.check_freezing(self)
        if self.depth is not None:
            architectures.resolve(
                self.depth, self.stem, self.block, self.width_multiplier, self.layout
            )
            freezing.check(self)
        own_units.check(self)

    @property
    def folder(self) -> str:
        """run_dir, or its default."""
        # A network to start from is not read before its folder is locked.
        name = "finetuned" if self.init_from else f"resnet{self.depth}"
        return self.run_dir or f"runs/{self.dataset}_{name}"

    def make_shortcut(self) -> Shortcut:
        """Returns the shortcut of `shortcut` and `shortcut_arguments`."""
        return own_units.shortcut(self.shortcut, self.shortcut_arguments)

    def require(self, *names: str) -> None:
        """Raises ValueError if one of the fields is None."""
        for name in names:
            if getattr(self, name) is None:
                raise ValueError(
                    f"{name} must be given, as every recipe in configs/ does: "
                    f"--recipe=digits_resnet20. Received: {name}=None"
                )

    def architecture(self) -> dict[str, Any]:
        """Arguments of `ResNetV2` and `describe` but for depth, image size and classes."""
        names = ("stem", "block", "projection", "width_multiplier", "layout")
        unit = own_units.unit(self.unit)
        # A factory decides on its shortcut itself.
        shortcut = "identity" if isinstance(unit, own_units.Factory) else self.make_shortcut()
        return {**{n: getattr(self, n) for n in names}, "unit": unit, "shortcut": shortcut}

    def resolved(self) -> "TrainConfig":
        """Returns a copy with the optimizer's defaults where nothing was given."""
        missing = config_rules.missing_of_optimization(self)
        return dataclasses.replace(self, **missing) if missing else self

    @property
    def scales_with_training(self) -> bool:
        """Whether the learning rate of a step depends on the length of training."""
        no_length = self.schedule_steps is None and self.schedule_epochs is None
        return self.scale_schedule or (self.schedule != "steps" and no_length)

    def updated(self, **given: Any) -> "TrainConfig":
        """Returns a copy with other values; a field unsets the one that it excludes."""
        unset = {
            excluded: None
            for pair in EXCLUSIVE[1:]
            for name, excluded in (pair, pair[::-1])
            if name in given
        }
        return dataclasses.replace(self, **{**unset, **given})

    def to_json(self) -> dict:
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, values: Any, where: str = "") -> "TrainConfig":
        """Reads a configuration from what `to_json` returned.

        Args:
            values: parsed JSON.
            where: place of the values in the file, for errors, as in "config".

        Raises:
            ValueError: if a field is unknown, as in files of later versions, or its value is of
                another type.
        """
        values = records.typed(values, dict, where)
        known = {field.name for field in dataclasses.fields(cls)}
        if unknown := sorted(values.keys() - known):
            names = ", ".join(map(records.short, unknown[:5]))
            raise ValueError(f"Unknown configuration fields: {names}")
        return records.typed(values, cls, where)
