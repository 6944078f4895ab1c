import dataclasses
import pathlib

import pytest

from keras_preact.studies.config import AnalysisConfig


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"checkpoint": "last"}, "newest, best. Received: checkpoint='last'"),
        ({"unit": ("original", "origin")}, "Received: unit='origin'. Did you mean 'original'?"),
        ({"block": "basics"}, "basic.*Received: block='basics'"),
        ({"projection": "conv"}, "Received: projection='conv'"),
        ({"stem": "imagenette"}, "cifar, imagenet. Received: stem='imagenette'"),
        ({"unit": ()}, "unit must be one or more, each once. Received: unit=$"),
        ({"depth": (8, 14, 8)}, "depth must be one or more, each once. Received: depth=8,14,8"),
        ({"shortcut": ("none", "none")}, "each once. Received: shortcut=none,none"),
        ({"depth": (8, 21)}, "6n\\+2.*Received: depth=21"),
        ({"depth": (8,), "stem": "imagenet"}, "stem='imagenet' must be one of 18.*"),
        ({"width_multiplier": 0.0}, "width_multiplier must be above 0.*=0.0"),
        ({"images": 0}, "images must be at least 1 and at most 2147483647. Received: images=0"),
        ({"draws": -1}, "draws must be at least 1 .* Received: draws=-1"),
        ({"image_size": 2**31}, "image_size must be .* Received: image_size=2147483648"),
        ({"seed": -1}, "seed must be at least 0 and at most 2147483647. Received: seed=-1"),
        ({"seed": 2**31}, "seed must be at least 0 .* Received: seed=2147483648"),
        ({"shortcut": ("identity", "idenity")}, "shortcut='idenity'. Did you mean 'identity'?"),
        ({"shortcut": ("constant_scaling:scale=2",)}, "takes shortcut_scale .* Received: scale"),
        ({"shortcut": ("identity:rate=0.5",)}, "takes no arguments. Received: rate"),
        ({"shortcut": ("dropout:rate=half",)}, "each value a number.*'rate=half'"),
    ],
    ids=lambda value: "" if isinstance(value, str) else next(iter(value)),
)
def test_wrong_values_are_refused_with_the_rule_and_what_was_received(wrong, words):
    with pytest.raises(ValueError, match=words):
        AnalysisConfig(**wrong)


def test_networks_are_the_product_of_depths_units_and_shortcuts_in_this_order():
    config = AnalysisConfig(
        depth=(14, 8),
        unit=("original", "full_preactivation"),
        shortcut=("identity", "constant_scaling:shortcut_scale=0.5:residual_scale=1"),
    )
    arguments = {"identity": "", "constant_scaling": "shortcut_scale=0.5,residual_scale=1"}
    found = [(c.depth, c.unit, c.shortcut, c.shortcut_arguments) for c in config.train_configs()]
    assert found == [
        (depth, unit, shortcut, arguments[shortcut])
        for depth in (14, 8)
        for unit in ("original", "full_preactivation")
        for shortcut in ("identity", "constant_scaling")
    ]


def test_arguments_of_a_shortcut_are_those_of_the_layer():
    text = "constant_scaling:shortcut_scale=0.25:residual_scale=2"
    [config] = AnalysisConfig(shortcut=(text,)).train_configs()
    layer = config.make_shortcut().get_config()
    assert (layer["shortcut_scale"], layer["residual_scale"]) == (0.25, 2)


def test_every_other_field_reaches_all_networks():
    fields = {
        "block": "bottleneck",
        "projection": "zero_pad",
        "stem": "cifar",
        "width_multiplier": 0.5,
        "seed": 7,
        "dataset": "digits",
        "data_dir": "images",
        "image_size": 16,
    }
    for config in AnalysisConfig(depth=(11, 20), **fields).train_configs():
        assert {name: getattr(config, name) for name in fields} == fields


def test_a_plain_net_beside_others_has_no_projection():
    config = AnalysisConfig(shortcut=("identity", "none"), projection="zero_pad")
    assert [c.projection for c in config.train_configs()] == ["zero_pad", None]


def test_new_networks_see_synthetic_images_of_the_size_that_their_stem_is_made_for():
    configs = AnalysisConfig(depth=(18, 110, 50)).train_configs()
    assert [c.image_size for c in configs] == [224, 32, 224]
    assert {c.dataset for c in configs} == {"synthetic"}
    [config] = AnalysisConfig(depth=(50,), stem="cifar").train_configs()
    assert config.image_size == 32
    [config] = AnalysisConfig(depth=(18,), image_size=64).train_configs()
    assert config.image_size == 64


def test_a_data_set_that_was_asked_for_keeps_its_own_size():
    [config] = AnalysisConfig(depth=(18,), dataset="digits").train_configs()
    assert (config.dataset, config.image_size) == ("digits", None)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, "analysis/lesion"),
        ({"run_dir": "runs/a"}, "runs/a/analysis/lesion"),
        ({"run_dir": "runs/a", "output_dir": "b"}, "b"),
        ({"output_dir": "~/b"}, f"{pathlib.Path.home()}/b"),
        ({"run_dir": "~/runs/a"}, f"{pathlib.Path.home()}/runs/a/analysis/lesion"),
    ],
)
def test_the_page_goes_beside_the_run_unless_another_folder_is_given(given, expected):
    assert str(AnalysisConfig(**given).folder("lesion")) == expected


def test_every_field_has_a_help_text_and_a_group():
    for field in dataclasses.fields(AnalysisConfig):
        assert field.metadata["help"] and field.metadata["group"]
