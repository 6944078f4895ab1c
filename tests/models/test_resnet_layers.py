"""Names of layers and variables, and which units own a projection."""

import pytest

from keras_preact import PlainNet, ResNet, ResNetV2
from keras_preact.layers import ResidualUnit, ZeroPad


def layer_names(model):
    return [layer.name for layer in model.layers]


def test_layers_of_a_preactivation_net_of_cifar_are_named_by_place():
    assert layer_names(ResNetV2(14)) == [
        "images",
        "stem_conv",
        *(f"stage{stage}_unit{unit}" for stage in (1, 2, 3) for unit in (1, 2)),
        "head_bn",
        "head_relu",
        "avg_pool",
        "logits",
    ]


def test_layers_of_an_original_net_of_imagenet_are_named_by_place():
    model = ResNet(18, input_shape=(32, 32, 3), classifier_activation="softmax")
    assert layer_names(model) == [
        "images",
        "stem_conv",
        "stem_bn",
        "stem_relu",
        "stem_pool",
        *(f"stage{stage}_unit{unit}" for stage in (1, 2, 3, 4) for unit in (1, 2)),
        "avg_pool",
        "logits",
        "predictions",
    ]


def test_variables_are_named_after_the_unit_and_the_layer_in_it():
    paths = [v.path for v in ResNetV2(20, block="bottleneck").trainable_variables]
    assert paths[0] == "stem_conv/kernel"
    assert paths[-4:] == ["head_bn/gamma", "head_bn/beta", "logits/kernel", "logits/bias"]
    inner = ["preact_bn", "bn2", "bn3"]
    expected = {f"{bn}/{part}" for bn in inner for part in ("gamma", "beta")}
    expected |= {f"conv{number}/kernel" for number in (1, 2, 3)}
    for unit, projection in (("stage2_unit2", set()), ("stage3_unit1", {"projection_conv/kernel"})):
        own = {path.partition("/")[2] for path in paths if path.startswith(f"{unit}/")}
        assert own == expected | projection
    assert len(paths) == len(set(paths))


@pytest.mark.parametrize("shortcut", ["exclusive_gating", "dropout"])
def test_variables_of_a_shortcut_are_named_after_its_unit(shortcut):
    model = ResNetV2(8, shortcut=shortcut)
    names = {v.path for v in model.variables if "/shortcut/" in v.path}
    own = {
        "exclusive_gating": ["gate_conv/kernel", "gate_conv/bias"],
        "dropout": ["seed/seed_generator_state"],
    }[shortcut]
    units = ["stage1_unit1", "stage2_unit1", "stage3_unit1"]
    assert names == {f"{unit}/shortcut/{name}" for unit in units for name in own}


def test_the_summary_has_one_row_for_every_unit():
    rows = []
    ResNetV2(20).summary(print_fn=rows.append, line_length=120)
    text = "\n".join(rows)
    assert text.count("ResidualUnit") == 9
    assert text.count("(BatchNormalization)") == 1
    for name in ("stem_conv", "stage1_unit1", "stage3_unit3", "head_bn", "logits"):
        assert text.count(f" {name} (") == 1


def with_convolution(model):
    return {v.path.partition("/")[0] for v in model.variables if "projection_conv" in v.path}


def with_zero_padding(model):
    units = [layer for layer in model.layers if isinstance(layer, ResidualUnit)]
    return {unit.name for unit in units if any(isinstance(x, ZeroPad) for x in unit.match)}


def first_units(stages):
    return {f"stage{stage}_unit1" for stage in stages}


SMALL = (32, 32, 3)


@pytest.mark.parametrize(
    ("builder", "arguments", "convolutions", "zero_paddings"),
    [
        # The first units of bottleneck stages widen even where they keep the image's size.
        (ResNetV2, {"depth": 50}, "1234", ""),
        (ResNetV2, {"depth": 18}, "234", ""),
        (ResNetV2, {"depth": 18, "projection": "zero_pad"}, "", "234"),
        (ResNetV2, {"depth": 164}, "123", ""),
        (ResNetV2, {"depth": 29, "projection": "zero_pad"}, "", "123"),
        (ResNetV2, {"depth": 20}, "", "23"),
        (ResNetV2, {"depth": 20, "projection": "convolution"}, "23", ""),
        (ResNetV2, {"depth": 14, "block": "single"}, "", "23"),
        (ResNet, {"depth": 34}, "234", ""),
        (ResNetV2, {"depth": 20, "shortcut": "exclusive_gating"}, "", "23"),
        # These change dimensions themselves or have no path to change.
        (ResNetV2, {"depth": 50, "shortcut": "convolution"}, "", ""),
        (PlainNet, {"depth": 34}, "", ""),
        (PlainNet, {"depth": 20}, "", ""),
    ],
)
def test_only_units_that_change_dimensions_own_a_projection(
    builder, arguments, convolutions, zero_paddings
):
    model = builder(input_shape=SMALL, **arguments)
    assert with_convolution(model) == first_units(convolutions)
    assert with_zero_padding(model) == first_units(zero_paddings)


def kernels(model, layer, units):
    shapes = {v.path: v.shape for v in model.variables}
    return [shapes[f"{unit}/{layer}/kernel"] for unit in units]


def test_a_convolution_shortcut_is_the_projection_where_dimensions_change():
    units = ["stage1_unit1", "stage1_unit2", "stage2_unit1"]
    model = ResNetV2(50, shortcut="convolution", input_shape=SMALL)
    assert kernels(model, "shortcut/conv", units) == [
        (1, 1, 64, 256),
        (1, 1, 256, 256),
        (1, 1, 256, 512),
    ]


@pytest.mark.parametrize(("depth", "strided"), [(50, "conv2"), (164, "conv1")])
def test_the_stride_is_in_the_3x3_on_imagenet_and_in_the_first_1x1_on_cifar(depth, strided):
    unit = ResNetV2(depth, input_shape=SMALL).get_layer("stage2_unit1")
    convolutions = [x for x in unit.residual_function if hasattr(x, "kernel_size")]
    assert {conv.name: conv.strides for conv in convolutions} == {
        **dict.fromkeys(("conv1", "conv2", "conv3"), (1, 1)),
        strided: (2, 2),
    }
