"""A SavedModel for servers: from raw images to probabilities and class names."""

import contextlib
import tempfile
from collections.abc import Callable, Mapping

import numpy as np
import tensorflow as tf
from etils import epath

from keras_preact.data.limits import MAX_IMAGE_PIXELS
from keras_preact.exporting.formats import preprocessing_record
from keras_preact.exporting.formats.decoding import make_decoder
from keras_preact.exporting.graph.network import InferenceGraph
from keras_preact.exporting.graph.precision import lower_precision
from keras_preact.exporting.graph.rewriting import Step
from keras_preact.exporting.graph.scales import move_scales
from keras_preact.layers import Preprocessing

TOP_CLASSES = 5
ASSET = "class_names.txt"


def rewrite(graph: InferenceGraph, precision: str) -> list[Step]:
    """Returns further steps after `rewriting.rewrite`, which suit TensorFlow and not TFLite.

    Args:
        graph: to rewrite.
        precision: one of `PRECISIONS`.
    """
    steps = [move_scales(graph, precision)]
    if precision != "float32":
        steps.append(lower_precision(steps[-1].graph, precision))
    return steps


def write(
    graph: InferenceGraph,
    preprocessing: Preprocessing,
    folder: epath.PathLike,
    *,
    freeze: bool = False,
    max_image_pixels: int = MAX_IMAGE_PIXELS,
) -> None:
    """Writes a SavedModel with four signatures.

    | signature | input | output |
    |---|---|---|
    | serving_default | `images` (batch, height, width, channels) uint8 | `probabilities` \
    (batch, classes); `classes` (batch, k), names, the likeliest first; `scores` (batch, k) |
    | serving_float32 | `images`, float32 in 0 to 255 | the same |
    | serving_bytes | `image_bytes` (batch,), JPEG or PNG files of any size | the same, and \
    `error` (batch,) |
    | features | `images` uint8 | `features` (batch, channels), what the classifier reads |

    k is 5, or the number of classes if that is smaller. Where an image may have several labels,
    each class has a probability of its own. The class names by label are also the
    asset class_names.txt; assets.extra/preprocessing.json says how a file becomes `images`. A file
    that cannot be decoded has a sentence in `error`, which is empty for all others, probabilities
    and scores of 0, and classes without names: servers put requests of many clients into one
    batch, and it must not fail theirs. Not NaN, which JSON lacks.

    The graph itself checks the shape of its input: servers do not, and TensorFlow's kernels may
    abort the process. An empty batch is refused with a sentence.

    Args:
        graph: of the network, from normalized images.
        preprocessing: from image files to the input, and from logits to probabilities.
        folder: a folder that does not exist yet.
        freeze: whether weights are constants of the graph instead of variables.
        max_image_pixels: as for `decoding.make_decoder`.
    """
    module = tf.Module()
    module.network = _make_network(module, graph, preprocessing, freeze)
    with tempfile.TemporaryDirectory() as temporary:
        names = epath.Path(temporary) / ASSET
        names.write_text("".join(f"{name}\n" for name in preprocessing.class_names))
        module.class_names = tf.saved_model.Asset(str(names))
        signatures = _make_signatures(module.network, preprocessing, max_image_pixels)
        _save(module, folder, signatures)
    preprocessing_record.write(folder, preprocessing)


def write_for_tflite(
    graph: InferenceGraph, preprocessing: Preprocessing, folder: epath.PathLike
) -> None:
    """Writes a SavedModel to convert: `images`, float32 in 0 to 255, to `probabilities`."""
    module = tf.Module()
    module.network = _make_network(module, graph, preprocessing, freeze=True)

    def predict(images):
        return {"probabilities": preprocessing.probabilities(module.network(images)["logits"])}

    signature = _signature(predict, [None, *preprocessing.image_shape], tf.float32, "images")
    _save(module, folder, signature)


def _save(module, folder, signatures):
    # A server needs no gradients, and functions may define some that cannot be saved.
    options = tf.saved_model.SaveOptions(experimental_custom_gradients=False)
    tf.saved_model.save(module, str(folder), signatures=signatures, options=options)


def _make_network(
    module, graph, preprocessing, freeze
) -> Callable[[tf.Tensor], Mapping[str, tf.Tensor]]:
    """Returns a function of images in 0 to 255; its variables, if any, belong to the module."""
    weights = graph.weights
    if not freeze:
        module.weights = weights = {
            name: tf.Variable(value, trainable=False, name=name) for name, value in weights.items()
        }

    @tf.function(input_signature=[tf.TensorSpec([None, *preprocessing.image_shape], tf.float32)])
    def network(images):
        return graph(preprocessing.normalize(images), weights)

    return network


def _make_signatures(network, preprocessing, max_image_pixels):
    class_names = preprocessing.class_names
    names, k = tf.constant(class_names), min(TOP_CLASSES, len(class_names))
    decode = make_decoder(preprocessing, max_image_pixels)

    def compute(images):
        return network(tf.cast(_filled(images), tf.float32))

    def predict(images):
        probabilities = preprocessing.probabilities(compute(images)["logits"])
        scores, labels = tf.math.top_k(probabilities, k)
        classes = tf.gather(names, labels)
        return {"probabilities": probabilities, "classes": classes, "scores": scores}

    def predict_bytes(image_bytes):
        images, errors = decode(image_bytes)
        good = tf.equal(errors, "")[:, None]
        answer = predict(images)
        kept = {name: tf.where(good, x, tf.zeros([], x.dtype)) for name, x in answer.items()}
        return {**kept, "error": errors}

    def features(images):
        return {"features": compute(images)["features"]}

    shape = [None, *preprocessing.image_shape]
    return {
        "serving_default": _signature(predict, shape, tf.uint8, "images"),
        "serving_float32": _signature(predict, shape, tf.float32, "images"),
        "serving_bytes": _signature(predict_bytes, [None], tf.string, "image_bytes"),
        "features": _signature(features, shape, tf.uint8, "images"),
    }


def _filled(images):
    """The images; the graph fails if there are none."""
    rule = "A batch must hold at least one image. Received: an empty batch"
    with tf.control_dependencies([tf.debugging.Assert(tf.shape(images)[0] > 0, [rule])]):
        return tf.identity(images)


def _signature(function, shape, dtype, name):
    def checked(value):
        return function(tf.ensure_shape(value, shape, name=name))

    return tf.function(checked, input_signature=[tf.TensorSpec(shape, dtype, name=name)])


class SessionModel:
    """A SavedModel in a plain session, loaded as TensorFlow Serving does: without Python code.

    Args:
        folder: of the SavedModel.
    """

    def __init__(self, folder: epath.PathLike):
        self._session = tf.compat.v1.Session(graph=tf.Graph())
        with _without_warnings():
            self.meta_graph = tf.compat.v1.saved_model.load(
                self._session, [tf.saved_model.SERVING], str(folder)
            )

    def __call__(self, signature: str, **inputs: np.ndarray) -> dict[str, np.ndarray]:
        """The outputs of a signature, by name."""
        definition = self.meta_graph.signature_def[signature]
        outputs = {name: info.name for name, info in definition.outputs.items()}
        feed = {definition.inputs[name].name: value for name, value in inputs.items()}
        return self._session.run(outputs, feed)

    def predict(self, images: np.ndarray) -> np.ndarray:
        """The probabilities (batch, classes) of uint8 images (batch, height, width, channels)."""
        return self("serving_default", images=images)["probabilities"]


@contextlib.contextmanager
def _without_warnings():
    """Silences the notice that this loader, the one that servers use, is deprecated."""
    logger = tf.get_logger()
    level = logger.level
    logger.setLevel("ERROR")
    try:
        yield
    finally:
        logger.setLevel(level)
