"""The rules of a configuration that concern numbers, or several fields at once."""

import dataclasses
import math
import reprlib
from typing import TYPE_CHECKING, Any

from keras_preact.data import splitting
from keras_preact.support.options import LARGEST
from keras_preact.training.steps.freezing import ALL_BUT_HEAD

if TYPE_CHECKING:
    from keras_preact.training.config import TrainConfig

# Pairs of which at most one may be given.
EXCLUSIVE = (
    ("resume", "overwrite"),
    ("train_steps", "train_epochs"),
    ("schedule_steps", "schedule_epochs"),
    ("drop_steps", "drop_epochs"),
    ("warmup_steps", "warmup_epochs"),
)
# Weight decay of LAMB: that of "ResNet strikes back" (2021), table 2, procedure A1; of AdamW: as
# common for networks of vision.
_OF_OPTIMIZER = {
    "sgd": {"learning_rate": 0.1, "weight_decay": 1e-4, "decay_bn": True},
    "adamw": {
        **{"learning_rate": 1e-3, "weight_decay": 0.05, "decay_bn": False},
        **{"beta1": 0.9, "beta2": 0.999, "epsilon": 1e-8},
    },
    "lamb": {
        **{"learning_rate": 5e-3, "weight_decay": 0.01, "decay_bn": False},
        **{"beta1": 0.9, "beta2": 0.999, "epsilon": 1e-6},
    },
}
# The paper's; a linear warm-up depends on the length of the schedule and the rate.
_CONSTANT_WARMUP = {"warmup_steps": 400, "warmup_learning_rate": 0.01}
# Fields that need another field to have one of some values. Not so momentum_form and drops, which
# a recipe may have, and the command line cannot take back.
_NEEDS = {
    "nesterov": ("optimizer", ("sgd",)),
    **dict.fromkeys(("beta1", "beta2", "epsilon"), ("optimizer", ("adamw", "lamb"))),
    "final_learning_rate": ("schedule", ("cosine", "linear")),
}
# Every evaluation waits for these batches.
_MOST = {"recompute_bn_batches": 100_000}


def check_numbers(config: "TrainConfig") -> None:
    """Raises ValueError if a number is outside its range."""
    above_zero = (
        *("log_steps", "eval_epochs", "checkpoint_steps", "keep_checkpoints", "image_size"),
        *("global_batch_size", "width_multiplier", "learning_rate", "warmup_learning_rate"),
        *("drop_factor", "schedule_steps", "schedule_epochs", "train_steps", "train_epochs"),
        *("steps_per_loop", "gradient_accumulation_steps", "cluster_timeout_seconds"),
        *("max_runtime_minutes", "max_rollbacks", "early_stopping_epochs"),
        *("thaw_epoch", "head_lr_multiplier", "layer_decay", "clip_norm", "epsilon"),
        *("crop_ratio", "remat_units", "validation_images"),
    )
    at_least_zero = (
        *("seed", "momentum", "weight_decay", "warmup_steps", "recompute_bn_batches"),
        *("stochastic_depth_rate", "label_smoothing", "mixup_alpha", "cutmix_alpha"),
        *("warmup_epochs", "final_learning_rate", "beta1", "beta2", "log_propagation_steps"),
    )
    defaults = {field.name: field.default for field in dataclasses.fields(config)}
    below_one = ("momentum", "stochastic_depth_rate", "label_smoothing", "beta1", "beta2")
    for name in (*above_zero, *at_least_zero):
        value = getattr(config, name)
        if value is None:
            if defaults[name] is not None:
                raise ValueError(f"{name} must be a number. Received: {name}=None")
            continue
        counts = isinstance(value, int) or name.endswith(("epochs", "epoch"))
        large_enough = value > 0 if name in above_zero else value >= 0
        largest = _MOST.get(name, LARGEST)
        if not (large_enough and (value <= largest if counts else math.isfinite(value))):
            least = "above 0" if name in above_zero else "at least 0"
            most = f"at most {largest}" if counts else "finite"
            received = f"{name}={reprlib.repr(value)}"
            raise ValueError(f"{name} must be {least} and {most}. Received: {received}")
    for name in below_one:
        if (getattr(config, name) or 0) >= 1:
            raise ValueError(f"{name} must be below 1. Received: {name}={getattr(config, name)}")
    if config.crop_ratio is not None and config.crop_ratio > 1:
        raise ValueError(f"crop_ratio must be at most 1. Received: crop_ratio={config.crop_ratio}")
    if config.ema_decay is not None and not 0 < config.ema_decay < 1:
        raise ValueError(
            f"ema_decay must be above 0 and below 1. Received: ema_decay={config.ema_decay}"
        )
    steps = config.profile_steps
    if steps is not None and not (len(steps) == 2 and 0 < steps[0] <= steps[1] <= LARGEST):
        raise ValueError(
            "profile_steps must be the first and the last step, as in 10,20. "
            f"Received: profile_steps={reprlib.repr(list(steps))}"
        )
    for name in ("drop_steps", "drop_epochs"):
        values = getattr(config, name) or ()
        in_range = all(0 < value <= LARGEST for value in values)
        if not in_range or list(values) != sorted(set(values)):
            raise ValueError(
                f"{name} must be ascending, above 0 and at most {LARGEST}. "
                f"Received: {name}={reprlib.repr(list(values))}"
            )


def check_contradictions(config: "TrainConfig") -> None:
    """Raises ValueError if two fields contradict each other."""
    for first, second in EXCLUSIVE:
        values = getattr(config, first), getattr(config, second)
        if all(value not in (None, False) for value in values):
            raise ValueError(
                f"{first} and {second} contradict each other: give one of them. "
                f"Received: {first}={values[0]}, {second}={values[1]}"
            )
    has_length = config.train_steps is not None or config.train_epochs is not None
    # Schedules without drops may have any length: recipes ask for it, whatever is given later.
    if config.scale_schedule and not has_length and config.schedule == "steps":
        raise ValueError(
            "scale_schedule needs the length to scale to: train_steps or train_epochs."
        )
    if config.mode == "evaluate" and (config.resume or config.overwrite):
        raise ValueError(
            "mode='evaluate' leaves the run as it is. "
            f"Received: resume={config.resume}, overwrite={config.overwrite}"
        )
    _check_remat(config)
    of_files = (None, "folder", "csv")
    if config.skip_bad_images and config.dataset not in of_files:
        raise ValueError(
            "skip_bad_images is for dataset='folder' and dataset='csv' alone. "
            f"Received: skip_bad_images=True, dataset={config.dataset!r}"
        )
    if config.split is not None:
        splitting.check(config.split)
        if config.dataset not in of_files:
            raise ValueError(
                "split is for dataset='folder' and dataset='csv' alone: other data sets bring "
                f"their own. Received: split={splitting.shown(config.split)}, "
                f"dataset={config.dataset!r}"
            )
    if config.validation_images is not None and config.dataset in of_files[1:]:
        raise ValueError(
            "validation_images is for data sets that bring their splits: folder and csv have "
            f"split. Received: validation_images={config.validation_images}, "
            f"dataset={config.dataset!r}"
        )
    if config.shortcut == "none" and config.projection is not None:
        raise ValueError(
            "shortcut='none' has no projection. Received: "
            f"shortcut='none', projection={config.projection!r}"
        )
    if config.shortcut == "none" and config.stochastic_depth_rate:
        raise ValueError(
            "shortcut='none' would leave nothing of a unit whose residual is dropped. "
            f"Received: shortcut='none', stochastic_depth_rate={config.stochastic_depth_rate}"
        )


def _check_remat(config):
    if (config.remat == "group") != (config.remat_units is not None):
        raise ValueError(
            "remat='group' and remat_units go together: units of a group. "
            f"Received: remat={config.remat!r}, remat_units={config.remat_units}"
        )
    if config.remat != "none" and config.unit_loops == "off":
        raise ValueError(
            f"remat recomputes units in loops. Received: remat={config.remat!r}, unit_loops='off'"
        )


def check_optimization(config: "TrainConfig") -> None:
    """Raises ValueError if a field is given that the optimizer or the schedule has no use for."""
    for name, (other, values) in _NEEDS.items():
        value = getattr(config, name)
        is_given = value is not None and value is not False
        if is_given and getattr(config, other) not in values:
            raise ValueError(
                f"{name} is for {other}={' or '.join(values)}. "
                f"Received: {name}={value}, {other}={getattr(config, other)!r}"
            )
    final, rate = config.final_learning_rate, config.learning_rate
    rate = _OF_OPTIMIZER[config.optimizer]["learning_rate"] if rate is None else rate
    if final is not None and final > rate:
        raise ValueError(
            "final_learning_rate must be at most learning_rate. "
            f"Received: final_learning_rate={final}, learning_rate={rate}"
        )


def missing_of_optimization(config: "TrainConfig") -> dict[str, Any]:
    """Returns the values of fields that are None and whose default follows from others."""
    is_paper = config.schedule == "steps"
    warmup = config.warmup or ("constant" if is_paper and config.optimizer == "sgd" else "linear")
    defaults = {**_OF_OPTIMIZER[config.optimizer], "warmup": warmup}
    if config.optimizer == "sgd":
        defaults["momentum_form"] = "caffe" if is_paper else "torch"
    if warmup == "constant":
        defaults |= _CONSTANT_WARMUP
    if config.warmup_epochs is not None:
        defaults.pop("warmup_steps", None)
    return {name: value for name, value in defaults.items() if getattr(config, name) is None}


def check_loss(config: "TrainConfig") -> None:
    """Raises ValueError if the fields of the loss contradict each other."""
    threshold = config.bce_target_threshold
    if threshold is not None and not 0 < threshold < 1:
        raise ValueError(
            "bce_target_threshold must be above 0 and below 1. "
            f"Received: bce_target_threshold={threshold}"
        )
    if threshold is not None and config.loss == "cross_entropy":
        raise ValueError(
            "bce_target_threshold is for loss='binary_cross_entropy' alone. Received: "
            f"bce_target_threshold={threshold}, loss='cross_entropy'"
        )
    if config.class_weights == "":
        raise ValueError("class_weights must be auto or a file. Received: class_weights=''")
    sampling = config.sampling
    if config.class_weights == "auto" and sampling != "natural":
        raise ValueError(
            "class_weights='auto' and another sampling than 'natural' would both make up for rare "
            "classes: give one of them, or class_weights as a file. Received: "
            f"class_weights='auto', sampling={sampling!r}"
        )


def check_freezing(config: "TrainConfig") -> None:
    """Raises ValueError if the fields of fine-tuning contradict each other."""
    names = config.freeze
    if names is not None and (not names or len(set(names)) < len(names)):
        raise ValueError(
            "freeze must be one or more parts of the network, each once. "
            f"Received: freeze={','.join(names)}"
        )
    if names and ALL_BUT_HEAD in names and len(names) > 1:
        raise ValueError(
            f"{ALL_BUT_HEAD} stands alone, as it names every part. "
            f"Received: freeze={','.join(names)}"
        )
    if config.thaw_epoch is not None and not names:
        raise ValueError(
            "thaw_epoch needs parts that are frozen until then: give freeze. "
            f"Received: thaw_epoch={config.thaw_epoch}"
        )
    if config.layer_decay > 1:
        raise ValueError(
            f"layer_decay must be at most 1. Received: layer_decay={config.layer_decay}"
        )
    if config.freeze_bn == "all" and config.recompute_bn_batches:
        raise ValueError(
            "freeze_bn='all' leaves no BN statistics to recompute. Received: freeze_bn='all', "
            f"recompute_bn_batches={config.recompute_bn_batches}"
        )
