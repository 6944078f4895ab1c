"""The accuracy of a network with one residual unit deleted, or two swapped."""

from collections.abc import Iterable

import keras
import numpy as np
import tensorflow as tf

from keras_preact.analysis import chain
from keras_preact.analysis.results import Lesions
from keras_preact.support import tf32


@tf32.off()
def lesion(
    model: keras.Model,
    batches: Iterable[tuple[np.ndarray, np.ndarray, np.ndarray]],
    *,
    swaps: bool = True,
) -> Lesions:
    """Evaluates a network with one change at a time: a unit deleted, or two swapped.

    A deleted unit loses its residual function: x_{l+1} = f(h(x_l)). Where dimensions change,
    its projection stays. A plain unit, whose h(x_l) is 0, is left out as a whole. Neighbours
    are swapped where their inputs and outputs all have one shape; layers between the two stay
    in place.

    Each change is computed from its first unit on. With L units a batch costs about L^2 / 2
    calls of a unit for the deletions, and as many again for the swaps. Memory holds the inputs
    of all units, of one batch at a time.

    Args:
        model: made of residual units called one after the other, as `forward` takes it,
            that returns (batch, classes). It is left unchanged.
        batches: (images, labels, weights): images (batch, height, width, channels) as the
            model takes them; labels int (batch,); weights (batch,), 1 for an image that
            counts, 0 for filling.
        swaps: whether to swap units too.

    Raises:
        ValueError: if the model is not a chain of units, there are no images, a label is
            not one of the model's classes, or the taps of a unit lack the shortcut_output that
            is left without its residual function.

    Source: "Residual Networks Behave Like Ensembles of Relatively Shallow Networks"
    (Veit et al., 2016), sections 4.1 and 4.3.
    """
    network = chain.take_apart(model)
    images_count, correct = 0, 0
    for images, labels, weights in batches:
        inputs = network.inputs(images, training=False)
        pairs = _swappable(inputs) if swaps else []
        outputs = _outputs(network, inputs, pairs)
        correct = correct + np.array([_count_correct(y, labels, weights) for y in outputs])
        images_count += int(np.count_nonzero(weights))
    if not images_count:
        raise ValueError(
            "batches must hold at least one image of a weight other than 0. Received: none"
        )
    accuracy, deleted, swapped = np.split(correct / images_count, [1, 1 + len(network.units)])
    return Lesions(
        units=network.names,
        images=images_count,
        accuracy=float(accuracy[0]),
        deleted_accuracy=deleted,
        swapped=np.array(pairs, int).reshape(-1, 2),
        swapped_accuracy=swapped,
    )


def _swappable(inputs):
    """Pairs (l, l + 1) of units, given the inputs of all units and the output of the last."""
    shapes = [x.shape[1:] for x in inputs]
    return [(n, n + 1) for n in range(len(inputs) - 2) if len(set(shapes[n : n + 3])) == 1]


def _outputs(network, inputs, pairs):
    """Yields the output of the unchanged network, without each unit, and with each pair swapped."""
    yield _finish(network, inputs[-1], len(network.units))
    for place, x in enumerate(inputs[:-1]):
        yield _delete(network, x, place)
    for first, _ in pairs:
        yield _swap(network, inputs[first], first)


def _delete(network, x, place):
    """The output without the unit at a place, whose input is x; None if it cannot be left out."""
    shortcut, is_plain = network.compute(_without_residual, (network.units[place],), x)
    if not is_plain:
        return _finish(network, shortcut, place + 1)
    return _finish(network, x, place + 1) if x.shape == shortcut.shape else None


def _without_residual(layers, x):
    """The output of a unit without its residual function, and whether it has no shortcut."""
    taps = layers[0](x, training=False, return_taps=True)
    output = taps.shortcut_output
    if output is None:
        if taps.output is not taps.sum:
            raise ValueError(
                "The taps of a unit must have shortcut_output, or the same tensor as sum and "
                f"output, to tell what is left without its residual function. Received: those "
                f"of {layers[0].name}, which have neither"
            )
        output = taps.shortcut
    # Every shortcut turns zeros into zeros.
    return output, tf.reduce_all(taps.shortcut == 0) & tf.reduce_any(taps.x != 0)


def _swap(network, x, first):
    """The output where the unit at place `first`, whose input is x, and the next are swapped."""
    earlier, later = network.units[first : first + 2]
    layers = later, *network.gaps[first + 1], earlier
    for layer in layers:
        x = network.compute(chain.call, (layer,), x, False)
    return _finish(network, x, first + 2)


def _finish(network, x, start):
    """The network's output, given the output x of the unit before place `start`."""
    for gap, unit in zip(network.gaps[start:], network.units[start:], strict=True):
        x = network.compute(chain.call, (*gap, unit), x, False)
    return network.compute(chain.call, network.tail, x, False)


def _count_correct(outputs, labels, weights):
    """Counts the images of a weight whose largest output is at their label; NaN for None."""
    if outputs is None:
        return np.nan
    labels, counts = np.asarray(labels), np.asarray(weights) != 0
    classes = outputs.shape[-1]
    fits = labels.shape == counts.shape == outputs.shape[:-1] and labels.dtype.kind in "iu"
    if not fits or np.any(counts & ((labels < 0) | (labels >= classes))):
        span = f", from {labels.min()} to {labels.max()}" if labels.size else ""
        raise ValueError(
            f"labels must be a whole number from 0 to {classes - 1} for each image, with a weight, "
            "and the model must return (batch, classes). Received: labels of shape "
            f"{labels.shape} and type {labels.dtype}{span}, weights of shape {counts.shape}, model "
            f"output of shape {tuple(outputs.shape)}"
        )
    return float(np.sum(counts & (np.argmax(outputs, axis=-1) == labels)))
