"""Gradients over several draws, against `backward` of each."""

import keras
import numpy as np
import pytest

from keras_preact.analysis import backward
from keras_preact.analysis.initial_gradient import initialisation
from keras_preact.models import ResNetV2

DEPTH = 8
IMAGES = np.random.default_rng(0).normal(size=(6, 8, 8, 3)).astype("float32")
LABELS = np.arange(6) % 4


def build(draw, shortcut="constant_scaling"):
    keras.utils.set_random_seed(100 + draw)
    return ResNetV2(DEPTH, input_shape=(8, 8, 3), classes=4, shortcut=shortcut)


def measured(**options):
    return initialisation(build, IMAGES, LABELS, label="a net", depth=DEPTH, **options)


@pytest.fixture(scope="module")
def three():
    return measured(draws=3)


def test_each_row_is_the_gradient_of_one_draw_over_that_at_the_end_of_the_last_unit(three):
    for draw in range(3):
        alone = backward(build(draw), IMAGES, LABELS)
        expected = alone.gradient_norm / alone.output_gradient_norm
        np.testing.assert_allclose(three.gradient_norm[draw], expected, rtol=1e-5)
        expected = alone.shortcut_norm / alone.output_gradient_norm
        np.testing.assert_allclose(three.shortcut_norm[draw], expected, rtol=1e-5)
    # Else draws could be copies of each other.
    assert np.all(np.ptp(three.gradient_norm, axis=0) > 1e-3 * three.gradient_norm[0])


def test_the_product_is_that_of_the_factors_as_equation_8_says(three):
    np.testing.assert_allclose(three.shortcut_product, [0.125, 0.25, 0.5], rtol=1e-6)


def test_a_product_that_depends_on_the_weights_is_the_mean_over_draws():
    def gated(draw):
        return build(draw, "exclusive_gating")

    found = initialisation(gated, IMAGES, LABELS, label="a net", depth=DEPTH, draws=2)
    products = [backward(gated(draw), IMAGES, LABELS).shortcut_product for draw in range(2)]
    assert not np.allclose(*products, rtol=1e-4)
    np.testing.assert_allclose(found.shortcut_product, np.mean(products, axis=0), rtol=1e-5)


def test_it_says_of_what_it_is(three):
    assert (three.label, three.depth) == ("a net", DEPTH)
    assert three.units == ("stage1_unit1", "stage2_unit1", "stage3_unit1")


def test_another_loss_is_that_of_backward(three):
    def loss(labels, outputs):
        return keras.ops.mean(outputs**2)

    found = measured(draws=1, loss=loss)
    alone = backward(build(0), IMAGES, LABELS, loss=loss)
    expected = alone.gradient_norm / alone.output_gradient_norm
    np.testing.assert_allclose(found.gradient_norm[0], expected, rtol=1e-5)
    assert not np.allclose(found.gradient_norm[0], three.gradient_norm[0], rtol=1e-2)


@pytest.mark.parametrize("draws", [0, -1])
def test_draws_that_are_not_above_0_are_refused_before_anything_is_built(draws):
    with pytest.raises(ValueError, match=f"draws must be above 0. Received: draws={draws}"):
        initialisation(None, IMAGES, LABELS, label="a net", depth=DEPTH, draws=draws)
