"""The layouts of published nets: where strides, biases and raw shortcuts are."""

import dataclasses

import pytest

import keras_preact
from keras_preact.layers import Operation
from keras_preact.models import architectures, describe

LAYOUTS = ("paper", "timm", "keras")
# Trainable parameters of keras.applications' nets, as its own tests and model cards give them.
KERAS_PARAMETERS = {50: 25_568_360, 101: 44_577_896, 152: 60_236_904}


def plans(depth, layout):
    architecture = architectures.resolve(depth, layout=layout)
    return {plan.name: plan for plan in architecture.units(architecture.unit_kind())}


@pytest.mark.parametrize("depth", KERAS_PARAMETERS)
def test_the_keras_layout_has_the_parameters_of_keras_applications(depth):
    description = describe(depth, layout="keras", print_fn=None)
    assert description.parameters == KERAS_PARAMETERS[depth]


def test_the_keras_layout_of_50_layers_takes_3482_million_multiply_adds():
    description = describe(50, layout="keras", print_fn=None)
    assert round(description.multiply_adds / 1e6) == 3482


@pytest.mark.parametrize("layout", ["paper", "timm"])
def test_the_other_layouts_have_no_biases_but_that_of_the_logits(layout):
    model = keras_preact.ResNetV2(18, layout=layout, input_shape=(32, 32, 3))
    biases = [v.path for v in model.variables if v.path.endswith("/bias")]
    assert biases == ["logits/bias"]
    assert model.count_params() == 11_687_720 + 7_808


def test_the_keras_layout_strides_in_the_last_unit_of_all_stages_but_the_last():
    strided = [name for name, plan in plans(50, "keras").items() if plan.strides == 2]
    assert strided == ["stage1_unit3", "stage2_unit4", "stage3_unit6"]


def test_its_strided_shortcuts_keep_every_second_pixel_of_the_raw_signal():
    plan = plans(50, "keras")["stage1_unit3"]
    assert plan.projection == (Operation("zero_pad", "projection", 256, strides=2),)
    assert not plan.shares_preactivation


def test_only_the_last_convolution_and_the_projection_of_a_unit_have_biases():
    plan = plans(50, "keras")["stage2_unit1"]
    operations = (*plan.preactivation, *plan.residual, *plan.projection)
    biased = [operation.name for operation in operations if operation.use_bias]
    assert biased == ["conv3", "projection_conv"]


def test_the_layouts_differ_in_the_first_shortcut_of_basic_units():
    shares = {name: plans(18, name)["stage1_unit1"].shares_preactivation for name in LAYOUTS}
    assert shares == {"paper": True, "timm": False, "keras": True}
    # Where the first unit changes the width, its projection always reads the activated signal.
    assert plans(50, "timm") == {
        name: dataclasses.replace(plan, first_in_network=False)
        for name, plan in plans(50, "paper").items()
    }


def test_an_unknown_layout_is_refused():
    with pytest.raises(ValueError, match=r"layout must be one of paper, timm, keras.*'torch'"):
        keras_preact.ResNetV2(18, layout="torch")


def test_a_unit_factory_takes_no_layout():
    with pytest.raises(ValueError, match=r"A unit factory decides on .* layout='keras'"):
        keras_preact.ResNetV2(18, layout="keras", unit=lambda **arguments: None)
