import dataclasses
import json

import pytest

from keras_preact.layers import ConstantScaling
from keras_preact.training import TrainConfig


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"unit": "full_preactivatoin"}, ["unit must be one of", "'full_preactivation'?"]),
        ({"shortcut": "identty"}, ["shortcut must be one of", "Did you mean 'identity'?"]),
        ({"block": "bottle"}, ["block must be one of", "single, basic, bottleneck"]),
        ({"projection": "pad"}, ["projection must be one of convolution, zero_pad"]),
        ({"mode": "test"}, ["mode must be one of train, evaluate"]),
        ({"augmentation": "flip"}, ["augmentation must be BASE", "BASE of none, pad_crop"]),
        ({"global_batch_size": 0}, ["global_batch_size must be above 0", "global_batch_size=0"]),
        ({"checkpoint_steps": None}, ["checkpoint_steps must be a number", "None"]),
        ({"train_steps": -1}, ["train_steps must be above 0", "train_steps=-1"]),
        ({"seed": -1}, ["seed must be at least 0", "seed=-1"]),
        ({"learning_rate": float("nan")}, ["learning_rate must be above 0", "nan"]),
        ({"weight_decay": float("inf")}, ["weight_decay must be at least 0", "inf"]),
        ({"momentum": 1.0}, ["momentum must be below 1", "momentum=1.0"]),
        ({"steps_per_loop": 0}, ["steps_per_loop must be above 0", "steps_per_loop=0"]),
        ({"gradient_accumulation_steps": 0}, ["gradient_accumulation_steps must be above 0"]),
        ({"cluster_timeout_seconds": 0}, ["cluster_timeout_seconds must be above 0"]),
        ({"recompute_bn_batches": -1}, ["recompute_bn_batches must be at least 0"]),
        ({"mixup_alpha": -0.1}, ["mixup_alpha must be at least 0", "mixup_alpha=-0.1"]),
        ({"mixup_alpha": float("inf")}, ["mixup_alpha must be", "finite"]),
        ({"cutmix_alpha": -1.0}, ["cutmix_alpha must be at least 0", "cutmix_alpha=-1.0"]),
        ({"loss": "bce"}, ["loss must be one of cross_entropy, binary_cross_entropy", "'bce'"]),
        ({"bce_target_threshold": 1.0}, ["above 0 and below 1", "bce_target_threshold=1.0"]),
        (
            {"bce_target_threshold": 0.2, "loss": "cross_entropy"},
            ["for loss='binary_cross_entropy' alone"],
        ),
        ({"class_weights": ""}, ["class_weights must be auto or a file"]),
        (
            {"class_weights": "auto", "sampling": "sqrt"},
            ["would both make up for rare classes", "sampling='sqrt'"],
        ),
        ({"monitor": "f1"}, ["monitor must be one of accuracy, loss, macro_f1, mean_average"]),
        ({"early_stopping_epochs": 0}, ["early_stopping_epochs must be above 0"]),
        ({"log_to": "tensorboard"}, ["log_to must be one of wandb, mlflow"]),
        ({"label_smoothing": -0.1}, ["label_smoothing must be at least 0"]),
        ({"label_smoothing": 1.0}, ["label_smoothing must be below 1", "label_smoothing=1.0"]),
        ({"stochastic_depth_rate": 1.0}, ["stochastic_depth_rate must be below 1"]),
        ({"ema_decay": 0.0}, ["ema_decay must be above 0 and below 1", "ema_decay=0.0"]),
        ({"ema_decay": 1.0}, ["ema_decay must be above 0 and below 1", "ema_decay=1.0"]),
        ({"ema_decay": float("nan")}, ["ema_decay must be above 0 and below 1"]),
        ({"checkpoint_steps": 0}, ["checkpoint_steps must be above 0", "checkpoint_steps=0"]),
        ({"max_runtime_minutes": 0.0}, ["max_runtime_minutes must be above 0"]),
        ({"max_runtime_minutes": float("inf")}, ["max_runtime_minutes must be", "finite"]),
        ({"max_rollbacks": 0}, ["max_rollbacks must be above 0", "max_rollbacks=0"]),
        ({"log_propagation_steps": -1}, ["log_propagation_steps must be at least 0", "=-1"]),
        ({"log_propagation_steps": None}, ["log_propagation_steps must be a number", "None"]),
        ({"on_nan": "ignore"}, ["on_nan must be one of stop, rollback"]),
        ({"profile_steps": (10,)}, ["first and the last step, as in 10,20", "[10]"]),
        ({"profile_steps": (20, 10)}, ["first and the last step", "profile_steps=[20, 10]"]),
        ({"profile_steps": (0, 10)}, ["first and the last step", "profile_steps=[0, 10]"]),
        ({"strategy": "mirored"}, ["strategy must be one of", "Did you mean 'mirrored'?"]),
        ({"precision": "half"}, ["one of auto, float32, mixed_bfloat16, mixed_float16"]),
        ({"xla": "true"}, ["xla must be one of auto, on, off"]),
        ({"shortcut": "none", "stochastic_depth_rate": 0.5}, ["stochastic_depth_rate=0.5"]),
        ({"drop_steps": (200, 100)}, ["drop_steps must be ascending, above 0", "[200, 100]"]),
        ({"drop_epochs": (1.0, float("inf"))}, ["drop_epochs must be", "[1.0, inf]"]),
        ({"global_batch_size": 10**12}, ["at most 2147483647", "1000000000000"]),
        ({"depth": 21}, ["6n+2 (basic)", "9n+2 (bottleneck)", "depth=21"]),
        ({"depth": 38}, ["depth=38 needs", "block='basic'", "block='bottleneck'"]),
        ({"depth": 20, "stem": "imagenet"}, ["18, 34, 50, 101, 152, 200", "depth=20"]),
        ({"resume": True, "overwrite": True}, ["resume and overwrite contradict"]),
        ({"train_steps": 5, "train_epochs": 1.0}, ["train_steps and train_epochs contradict"]),
        ({"scale_schedule": True}, ["scale_schedule needs", "train_steps or train_epochs"]),
        (
            {"dataset": "digits", "skip_bad_images": True},
            ["for dataset='folder' and dataset='csv' alone"],
        ),
        ({"dataset": "digits", "split": (80, 20)}, ["dataset='csv' alone", "split=80,20"]),
        ({"dataset": "folder", "split": (80, 30)}, ["100 together", "split=80,30"]),
        ({"dataset": "csv", "split": (100,)}, ["80,10,10 or 80,20", "split=100"]),
        (
            {"dataset": "folder", "validation_images": 9},
            ["data sets that bring their splits", "validation_images=9, dataset='folder'"],
        ),
        ({"dataset": "csv", "validation_images": 9}, ["folder and csv have split"]),
        ({"validation_images": 0}, ["validation_images must be above 0"]),
        ({"sampling": "even"}, ["sampling must be one of natural, balanced, sqrt"]),
        ({"shortcut": "none", "projection": "convolution"}, ["has no projection"]),
        ({"shortcut_arguments": "rate=0.2"}, ["Identity takes no arguments", "rate"]),
        (
            {"shortcut": "dropout", "shortcut_arguments": "rate:0.2"},
            ["NAME=VALUE", "'rate:0.2'"],
        ),
        ({"shortcut": "dropout", "shortcut_arguments": "rate='a'"}, ["each value a number"]),
        ({"shortcut": "dropout", "shortcut_arguments": "rate=None"}, ["each value a number"]),
        ({"shortcut": "dropout", "shortcut_arguments": "rate=1e400"}, ["each value a number"]),
        ({"shortcut": "dropout", "shortcut_arguments": "rate=nan"}, ["each value a number"]),
        ({"shortcut": "dropout", "shortcut_arguments": "rate=0.5\0"}, ["each value", r"0.5\x00"]),
        (
            {"shortcut": "dropout", "shortcut_arguments": "\0=1"},
            ["takes rate and rescale", r"\x00"],
        ),
        ({"shortcut": "dropout", "shortcut_arguments": "name=1"}, ["takes rate and", "name"]),
        ({"shortcut": "dropout", "shortcut_arguments": "self=1"}, ["takes rate and", "self"]),
        ({"depth": 2147483642}, ["at most", "units", "depth=2147483642, of 1073741820 basic"]),
        ({"depth": 8, "width_multiplier": 1e308}, ["at most 33554432", "width_multiplier=1e+308"]),
        ({"depth": 8, "width_multiplier": float("inf")}, ["finite", "width_multiplier=inf"]),
        (
            {"depth": 8, "freeze": ("stage4",)},
            ["stage1, stage2, stage3, head_bn, or all_but_head"],
        ),
        ({"depth": 18, "freeze": ("stage5",)}, ["stage4, head_bn", "Did you mean 'stage4'?"]),
        ({"depth": 8, "unit": "original", "freeze": ("head_bn",)}, ["stage3, or all_but_head"]),
        ({"freeze": ()}, ["one or more parts", "each once"]),
        ({"freeze": ("stem", "stem")}, ["each once", "freeze=stem,stem"]),
        ({"freeze": ("all_but_head", "stem")}, ["all_but_head stands alone"]),
        ({"thaw_epoch": 2.0}, ["thaw_epoch needs parts that are frozen"]),
        ({"freeze": ("stem",), "thaw_epoch": 0.0}, ["thaw_epoch must be above 0"]),
        ({"freeze_bn": "some"}, ["freeze_bn must be one of none, frozen, all"]),
        ({"freeze_bn": "all", "recompute_bn_batches": 2}, ["no BN statistics to recompute"]),
        ({"head_lr_multiplier": 0.0}, ["head_lr_multiplier must be above 0"]),
        ({"layer_decay": 0.0}, ["layer_decay must be above 0"]),
        ({"layer_decay": 1.5}, ["layer_decay must be at most 1", "layer_decay=1.5"]),
        ({"schedule_rule": "bits"}, ["schedule_rule must be one of bit"]),
        ({"optimizer": "adam"}, ["optimizer must be one of sgd, adamw, lamb", "'adamw'?"]),
        ({"schedule": "cos"}, ["schedule must be one of steps, cosine, linear, constant"]),
        ({"warmup": "none"}, ["warmup must be one of constant, linear"]),
        ({"warmup_steps": 5, "warmup_epochs": 1.0}, ["warmup_steps and warmup_epochs contradict"]),
        ({"warmup_epochs": -1.0}, ["warmup_epochs must be at least 0"]),
        ({"optimizer": "lamb", "nesterov": True}, ["nesterov is for optimizer=sgd", "'lamb'"]),
        ({"momentum_form": "keras"}, ["momentum_form must be one of caffe, torch"]),
        ({"beta1": 0.9}, ["beta1 is for optimizer=adamw or lamb", "optimizer='sgd'"]),
        ({"optimizer": "adamw", "beta2": 1.0}, ["beta2 must be below 1", "beta2=1.0"]),
        ({"optimizer": "adamw", "epsilon": 0.0}, ["epsilon must be above 0"]),
        ({"crop_ratio": 1.1}, ["crop_ratio must be at most 1", "crop_ratio=1.1"]),
        ({"crop_ratio": 0.0}, ["crop_ratio must be above 0", "crop_ratio=0.0"]),
        ({"clip_norm": 0.0}, ["clip_norm must be above 0", "clip_norm=0.0"]),
        ({"final_learning_rate": 0.0}, ["final_learning_rate is for schedule=cosine or linear"]),
        (
            {"schedule": "linear", "optimizer": "adamw", "final_learning_rate": 0.1},
            ["final_learning_rate must be at most learning_rate", "learning_rate=0.001"],
        ),
    ],
)
def test_a_wrong_value_is_refused_with_the_rule_and_what_was_received(values, words):
    with pytest.raises(ValueError) as error:
        TrainConfig(**values)
    for word in words:
        assert word in str(error.value)


@pytest.mark.parametrize("text", ["-" * 5000 + "1", "[" * 5000, "9" * 5000, "1+" * 5000])
def test_long_arguments_of_a_shortcut_are_refused_in_a_short_error(text):
    with pytest.raises(ValueError, match="each value a number") as error:
        TrainConfig(shortcut="dropout", shortcut_arguments=f"rate={text}")
    assert len(str(error.value)) < 500


def test_numbers_of_hundreds_of_digits_are_refused_in_a_short_error():
    for name, value in (("seed", 10**400), ("drop_steps", (10**400,))):
        with pytest.raises(ValueError, match=f"{name} must be") as error:
            TrainConfig(**{name: value})
        assert len(str(error.value)) < 200


def test_json_gives_back_the_same_configuration():
    config = TrainConfig(
        dataset="cifar10",
        depth=110,
        drop_epochs=(1.5, 3.0),
        schedule_epochs=4.0,
        decay_bn=False,
        profile_steps=(10, 20),
        ema_decay=0.999,
    )
    assert TrainConfig.from_json(json.loads(json.dumps(config.to_json()))) == config


def test_an_unknown_field_of_a_file_is_named():
    with pytest.raises(ValueError, match="colour"):
        TrainConfig.from_json({"depth": 20, "colour": "blue"})


def test_shortcut_arguments_reach_the_shortcut():
    config = TrainConfig(
        shortcut="constant_scaling", shortcut_arguments="shortcut_scale=0.25, residual_scale=1"
    )
    shortcut = config.make_shortcut()
    assert isinstance(shortcut, ConstantScaling)
    assert (shortcut.shortcut_scale, shortcut.residual_scale) == (0.25, 1)


def test_a_new_value_unsets_the_one_it_excludes():
    config = TrainConfig(train_steps=100, drop_steps=(50,)).updated(train_epochs=2.0)
    assert (config.train_steps, config.train_epochs) == (None, 2.0)
    assert config.drop_steps == (50,)


def test_every_field_has_a_group_and_a_help_text():
    groups = ("run", "machine", "data", "model", "fine-tuning", "loss", "regularization")
    groups += ("optimization",)
    for field in dataclasses.fields(TrainConfig):
        assert field.metadata["group"] in groups
        assert len(field.metadata["help"]) > 5


def test_a_missing_field_is_asked_for_with_an_example():
    with pytest.raises(ValueError, match=r"dataset must be given.*--recipe=digits_resnet20"):
        TrainConfig(depth=20).require("dataset", "depth")


def test_what_is_not_given_follows_from_optimizer_and_schedule():
    paper = TrainConfig().resolved()
    assert (paper.learning_rate, paper.weight_decay, paper.decay_bn) == (0.1, 1e-4, True)
    assert (paper.warmup, paper.warmup_steps, paper.warmup_learning_rate) == ("constant", 400, 0.01)
    assert (paper.momentum_form, paper.beta1) == ("caffe", None)
    cosine = TrainConfig(schedule="cosine").resolved()
    assert (cosine.momentum_form, cosine.warmup, cosine.warmup_steps) == ("torch", "linear", None)
    adamw = TrainConfig(optimizer="adamw", weight_decay=0.0).resolved()
    assert (adamw.learning_rate, adamw.weight_decay, adamw.decay_bn) == (1e-3, 0.0, False)
    assert (adamw.beta1, adamw.beta2, adamw.epsilon, adamw.warmup) == (0.9, 0.999, 1e-8, "linear")
    assert TrainConfig(optimizer="lamb").resolved().epsilon == 1e-6
    assert paper.resolved() is paper and adamw.updated(optimizer="adamw") == adamw
