"""The additions of the residual stream that are found in TFLite files, and their distortion."""

import numpy as np
import pytest
import tensorflow as tf
from residual_files import exact_file, make_images, make_model, streams
from tiny_nets import Function, make_net

from keras_preact.exporting.formats import ranges
from keras_preact.exporting.formats.additions import distortions, find
from keras_preact.exporting.formats.flatbuffer import unpack
from keras_preact.layers import ORDERS, SHORTCUTS

UNITS = ["stage1_unit1", "stage2_unit1", "stage3_unit1"]


@pytest.mark.parametrize("unit", ORDERS)
def test_the_addition_of_each_unit_is_found_in_every_arrangement(tmp_path, unit):
    found = find(exact_file(tmp_path / "saved_model", make_model(unit=unit)))
    assert [each.unit for each in found] == UNITS
    assert all("conv" in each.residual or "bn" in each.residual for each in found)
    if unit == "full_preactivation":
        # The sum is scaled, then shifted and rectified, before the next convolution.
        assert [len(each.readers) for each in found] == [2, 2, 2]


@pytest.mark.slow
@pytest.mark.parametrize("shortcut", SHORTCUTS)
def test_the_addition_of_each_unit_is_found_with_every_shortcut(tmp_path, shortcut):
    found = find(exact_file(tmp_path / "saved_model", make_model(shortcut=shortcut)))
    assert {each.unit for each in found} == (set() if shortcut == "none" else set(UNITS))


def test_a_network_without_additions_has_none(tmp_path):
    file = exact_file(tmp_path / "saved_model", make_net(Function(tf.nn.relu)))
    assert find(file) == []


@pytest.fixture(scope="module")
def model():
    return make_model()


@pytest.fixture(scope="module")
def files(model, tmp_path_factory):
    """The float32 file, and the int8 file."""
    exact = exact_file(tmp_path_factory.mktemp("files") / "saved_model", model)
    return exact, ranges.quantize(exact, ranges.observed(exact, make_images(20)))


def test_a_file_is_not_distorted_beside_itself(files):
    for each in distortions(files[0], files[0], find(files[0]), make_images(2)):
        assert each.stream_decibels > 100 and each.residual_decibels > 100
        assert each.rounding_decibels is None


def test_rounding_alone_is_that_of_the_sum_beside_what_the_unit_adds(model, files):
    exact, file = files
    images, additions = make_images(4), find(exact)
    [graph] = unpack(file).subgraphs
    quantizations = {each.name.decode(): each.quantization for each in graph.tensors}
    expected = streams(model, images)
    powers = residual_powers(exact, additions, images)
    found = distortions(exact, file, additions, images)
    for each, addition, power in zip(found, additions, powers, strict=True):
        quantization, stream = quantizations[addition.stream], expected[each.unit]
        [scale], [zero_point] = quantization.scale, quantization.zeroPoint
        steps = np.clip(np.rint(stream / scale) + zero_point, -128, 127)
        error = (steps - zero_point) * scale - stream
        decibels = 10 * np.log10(power / np.square(error).mean())
        assert each.rounding_decibels == pytest.approx(decibels, abs=0.05)


def residual_powers(exact, additions, images):
    activations = ranges.Activations(exact, {each.residual for each in additions})
    values = [dict(activations(image)) for image in images]
    for each in additions:
        yield np.mean([np.square(value[each.residual]).mean() for value in values])


def test_errors_grow_along_the_stream_and_are_those_of_the_file(files):
    exact, file = files
    additions, images = find(exact), make_images(4)
    found = distortions(exact, file, additions, images)
    assert [each.unit for each in found] == UNITS
    assert 15 < found[-1].stream_decibels < found[0].stream_decibels < 60
    names = {each.stream for each in additions}
    signal = noise = 0
    for image in images:
        values = [dict(ranges.Activations(each, names)(image)) for each in (exact, file)]
        signal += np.square(values[0][additions[1].stream]).sum()
        noise += np.square(values[0][additions[1].stream] - values[1][additions[1].stream]).sum()
    assert found[1].stream_decibels == pytest.approx(10 * np.log10(signal / noise), abs=0.01)
