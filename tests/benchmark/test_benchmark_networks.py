"""The three frameworks measure one network."""

import keras
import numpy as np
import pytest

import keras_preact
from keras_preact.benchmark import stock_keras
from keras_preact.benchmark.job import make_net

# (depth, image size): basic and bottleneck units, with both stems. Odd and even sizes pad
# differently.
CASES = [(8, 8), (11, 7), (18, 33), (50, 64)]


def make_ours(depth, image_size, nontrivial=False):
    model = keras_preact.ResNetV2(depth, input_shape=(image_size, image_size, 3))
    if nontrivial:
        rng = np.random.default_rng(0)
        ranges = {
            "gamma": (0.5, 1.5),
            "beta": (-0.5, 0.5),
            "moving_mean": (-0.3, 0.3),
            "moving_variance": (0.5, 1.5),
        }
        for variable in model.variables:
            if variable.name in ranges:
                variable.assign(rng.uniform(*ranges[variable.name], variable.shape))
    return model


def values_of(model):
    """Values by our paths: unit/layer/variable, or layer/variable."""
    return {variable.path: variable.numpy() for variable in model.variables}


def copy_to_stock(ours, stock):
    values = {path.replace("/", "_"): value for path, value in values_of(ours).items()}
    for variable in stock.variables:
        variable.assign(values.pop(variable.path.replace("/", "_")))
    assert not values


def copy_to_torch(ours, net):
    import torch

    names = {
        "gamma": "weight",
        "beta": "bias",
        "moving_mean": "running_mean",
        "moving_variance": "running_var",
        "kernel": "weight",
        "bias": "bias",
    }
    state = {}
    for path, value in values_of(ours).items():
        *layers, variable = path.split("/")
        if variable == "kernel":
            value = value.transpose((3, 2, 0, 1) if value.ndim == 4 else (1, 0))
        prefix = ["units"] if layers[0].startswith("stage") else []
        state[".".join([*prefix, *layers, names[variable]])] = torch.tensor(value)
    missing, unexpected = net.load_state_dict(state, strict=False)
    assert not unexpected and all(name.endswith("num_batches_tracked") for name in missing)


def trainable_count(variables):
    return sum(int(np.prod(variable.shape)) for variable in variables)


@pytest.mark.parametrize("depth", [8, 11, 18, 50, 164])
def test_stock_keras_has_exactly_our_number_of_parameters_and_statistics(depth):
    stock = stock_keras.build(make_net(depth), (32, 32, 3))
    described = keras_preact.models.describe(depth, print_fn=None)
    assert trainable_count(stock.trainable_variables) == described.parameters
    assert trainable_count(stock.non_trainable_variables) == described.moving_statistics


@pytest.mark.parametrize("depth", [8, 11, 18, 50, 164])
def test_pytorch_has_exactly_our_number_of_parameters(depth):
    pytest.importorskip("torch")
    from keras_preact.benchmark import pytorch

    net = pytorch.ResNetV2(make_net(depth))
    described = keras_preact.models.describe(depth, print_fn=None)
    assert trainable_count(net.parameters()) == described.parameters


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize(("depth", "image_size"), CASES)
def test_stock_keras_computes_our_logits_from_our_weights(depth, image_size, training):
    ours = make_ours(depth, image_size, nontrivial=True)
    stock = stock_keras.build(make_net(depth), (image_size, image_size, 3))
    copy_to_stock(ours, stock)
    assert all(
        type(layer).__module__.startswith("keras.src") for layer in stock._flatten_layers()
    ), "stock Keras has Keras' own layers alone"
    images = np.random.default_rng(1).standard_normal((3, *ours.input_shape[1:]), np.float32)
    expected = ours(images, training=training).numpy()
    assert np.ptp(expected) > 0.1, "a network that says nothing proves nothing"
    np.testing.assert_allclose(
        stock(images, training=training), expected, rtol=1e-3, atol=1e-3 * np.ptp(expected)
    )


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize(("depth", "image_size"), CASES)
def test_pytorch_computes_our_logits_from_our_weights(depth, image_size, training):
    torch = pytest.importorskip("torch")
    from keras_preact.benchmark import pytorch

    ours = make_ours(depth, image_size, nontrivial=True)
    net = pytorch.ResNetV2(make_net(depth)).train(training)
    copy_to_torch(ours, net)
    images = np.random.default_rng(1).standard_normal((3, *ours.input_shape[1:]), np.float32)
    expected = ours(images, training=training).numpy()
    with torch.no_grad():
        logits = net(torch.tensor(images.transpose(0, 3, 1, 2))).numpy()
    np.testing.assert_allclose(logits, expected, rtol=1e-3, atol=1e-3 * np.ptp(expected))


@pytest.mark.parametrize(("depth", "image_size"), CASES)
def test_stock_keras_is_the_same_net_under_a_global_channels_first(depth, image_size):
    shape = (image_size, image_size, 3)
    images = np.random.default_rng(1).standard_normal((3, *shape), np.float32)

    def logits(data_format):
        keras.config.set_image_data_format(data_format)
        try:
            keras.utils.set_random_seed(0)
            stock = stock_keras.build(make_net(depth), shape)
            return stock(images, training=True)
        finally:
            keras.config.set_image_data_format("channels_last")

    np.testing.assert_array_equal(logits("channels_first"), logits("channels_last"))


def test_stock_keras_and_pytorch_normalize_images_as_we_do():
    images = np.random.default_rng(1).integers(0, 256, (2, 8, 8, 3), np.uint8)
    normalized = (np.float64(images) - 127.5) / 73.6
    keras.utils.set_random_seed(0)
    expected = stock_keras.build(make_net(8), (8, 8, 3))(normalized.astype(np.float32))
    keras.utils.set_random_seed(0)
    logits = stock_keras.build(make_net(8), (8, 8, 3), normalizes=True)(images)
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-5)
    torch = pytest.importorskip("torch")
    from keras_preact.benchmark import pytorch

    module = pytorch.Normalized(torch.nn.Identity())
    np.testing.assert_allclose(module(torch.tensor(images)).numpy(), normalized, atol=1e-6)


def test_stock_keras_normalizes_with_our_momentum_and_epsilon():
    layers = [
        layer
        for layer in stock_keras.build(make_net(8), (8, 8, 3)).layers
        if isinstance(layer, keras.layers.BatchNormalization)
    ]
    assert {(layer.momentum, layer.epsilon) for layer in layers} == {(0.9, 1e-5)}
    assert len(layers) == 2 * 3 + 1
