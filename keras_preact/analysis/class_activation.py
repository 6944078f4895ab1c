"""Where in an image a network sees a class: Grad-CAM.

Source: Selvaraju et al., "Grad-CAM: Visual Explanations from Deep Networks via Gradient-based
Localization" (2017), equations (1) and (2).
"""

import keras
import numpy as np
import tensorflow as tf

# Images whose gradients are in memory together.
_BATCH = 16


def grad_cam(
    model: keras.Model,
    images: np.ndarray | tf.Tensor,
    classes: np.ndarray | None = None,
    *,
    resize: bool = True,
) -> np.ndarray:
    """Returns how much each place of an image speaks for a class.

    The map is that which the global pooling reads. In a pre-activation network that is the output
    of the head's BN and ReLU: the convolution and the addition before them return raw signals,
    whose channels the head still scales, shifts and cuts off. In a network of original units it is
    the output of the last one, which ends in a ReLU.

    With global average pooling and a linear classifier behind, as here, the weights of the
    channels are the classifier's own, divided by the number of places: Grad-CAM then is the class
    activation map of Zhou et al. (2016).

    Args:
        model: from images to logits, or through a softmax or sigmoid to probabilities, with a
            pooling between the last map and these.
        images: (batch, height, width, channels): float as the model takes them; or uint8, which
            the preprocessing that the model carries normalizes.
        classes: int (batch,), the class of each image; default: its likeliest.
        resize: whether to enlarge the maps to the size of the images, bilinearly.

    Returns:
        float32 (batch, height, width), at least 0; 0 where nothing speaks for the class.

    Raises:
        ValueError: if the model has no such map, uint8 images meet a model without preprocessing,
            or classes do not fit.
    """
    tapped = _tapped(model)
    images = tf.convert_to_tensor(images)
    if images.dtype == tf.uint8:
        preprocessing = getattr(model, "preprocessing", None)
        if preprocessing is None:
            raise ValueError(
                "images must be float, as the model takes them, unless it carries its "
                "preprocessing. Received: uint8 images, and a model that carries none"
            )
        images = preprocessing.normalize(images)
    if classes is not None:
        classes = _checked(classes, len(images), model.output_shape[-1])
    maps = []
    for start in range(0, len(images), _BATCH):
        part = images[start : start + _BATCH]
        chosen = None if classes is None else classes[start : start + _BATCH]
        found = _maps(tapped, part, chosen)
        if resize:
            found = tf.image.resize(found[..., None], images.shape[1:3])[..., 0]
        maps.append(found.numpy())
    return np.concatenate(maps) if maps else np.zeros((0, *images.shape[1:3]), np.float32)


def _maps(tapped, images, classes):
    model, last = tapped
    with tf.GradientTape() as tape:
        # Weights may be frozen: the images make the tape record.
        tape.watch(images)
        features, before = model(images, training=False)
        logits = _logits(last, before)
        if classes is None:
            classes = tf.argmax(logits, axis=-1)
        score = tf.reduce_sum(tf.gather(logits, classes, batch_dims=1))
    gradient = tape.gradient(score, features)
    features, gradient = (tf.cast(each, tf.float32) for each in (features, gradient))
    weights = tf.reduce_mean(gradient, axis=(1, 2))
    return tf.nn.relu(tf.einsum("bhwc,bc->bhw", features, weights))


def _tapped(model):
    """A model that returns the last map and the input of the last layer; and that layer."""
    inputs, outputs = getattr(model, "inputs", None) or [], getattr(model, "outputs", None) or []
    if [len(tensor.shape) for tensor in (*inputs, *outputs)] != [4, 2]:
        raise ValueError(
            "model must be a functional or sequential one, from images (batch, height, width, "
            "channels) to one number for each class. "
            f"Received: {getattr(model, 'name', type(model).__name__)}"
        )
    last, before = _made_by(outputs[0])
    # Not by the layers' outputs: a layer may be part of several models.
    maps, tensor = [], before
    while tensor is not None and _made_by(tensor)[1] is not None:
        maps += [tensor] if len(tensor.shape) == 4 else []
        _, tensor = _made_by(tensor)
    # Some classifiers are convolutions of a pooled map of one place.
    wide = [tensor for tensor in maps if tuple(tensor.shape[1:3]) != (1, 1)]
    if not maps:
        raise ValueError(
            "model must have a map (batch, height, width, channels) that a pooling reads, and a "
            f"classifier behind. Received: {model.name}, without one"
        )
    return keras.Model(inputs, [(wide or maps)[0], before]), last


def _made_by(tensor):
    """The layer that returned a symbolic tensor, and its first input; None for an input."""
    layer, node, _ = tensor._keras_history
    inputs = layer._inbound_nodes[node].input_tensors
    return layer, inputs[0] if inputs else None


def _logits(last, before):
    """The output of the last layer without its softmax or sigmoid."""
    activations = (keras.activations.softmax, keras.activations.sigmoid)
    activation = getattr(last, "activation", None)
    if isinstance(last, keras.layers.Softmax):
        return before
    if activation not in activations:
        return last(before)
    if isinstance(last, keras.layers.Dense):
        logits = tf.matmul(tf.cast(before, last.kernel.dtype), last.kernel)
        return logits + last.bias if last.use_bias else logits
    return before


def _checked(classes, count, most):
    classes = np.asarray(classes)
    in_range = classes.shape == (count,) and classes.dtype.kind in "iu"
    if not in_range or (count and not 0 <= classes.min() <= classes.max() < most):
        raise ValueError(
            f"classes must be a whole number from 0 to {most - 1} for each of {count} images. "
            f"Received: shape {classes.shape}, type {classes.dtype}"
        )
    return classes.astype(np.int64)
