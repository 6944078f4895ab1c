"""Warm-up requests, which TensorFlow Serving answers when it loads a model."""

from collections.abc import Sequence

import numpy as np
import tensorflow as tf
from etils import epath
from tensorflow.core.protobuf import saved_model_pb2
from tensorflow_serving.apis import prediction_log_pb2

from keras_preact.exporting.serving.client import MAX_IMAGES

# The server looks for it there.
FILE = "assets.extra/tf_serving_warmup_requests"


def write(
    version: epath.PathLike,
    model_name: str,
    image: np.ndarray,
    image_bytes: bytes,
    batch_sizes: Sequence[int] = (1, MAX_IMAGES),
) -> None:
    """Writes warm-up requests into a version of a SavedModel.

    The server answers them before all others. No client then waits for TensorFlow's slow first
    computation, and the memory of a full batch is known to suffice. A version that fails on
    one of them is not served.

    Args:
        version: the folder with saved_model.pb. Every signature takes one input, either
            images (batch, height, width, channels) or image files, strings (batch,).
        model_name: the name on the server.
        image: one image, uint8 (height, width, channels).
        image_bytes: one image file.
        batch_sizes: the sizes of the requests to each signature, at most the server's
            `max_batch_size`. The server takes at most 1,000 requests in all.
    """
    version = epath.Path(version)
    file = version / FILE
    file.parent.mkdir(exist_ok=True)
    with tf.io.TFRecordWriter(str(file)) as writer:
        for signature, definition in _signatures(version):
            [(name, info)] = definition.inputs.items()
            dtype = tf.as_dtype(info.dtype)
            example = image_bytes if dtype == tf.string else image
            for batch_size in batch_sizes:
                batch = np.array([example] * batch_size, dtype.as_numpy_dtype)
                log = prediction_log_pb2.PredictionLog()
                request = log.predict_log.request
                request.model_spec.name = model_name
                request.model_spec.signature_name = signature
                request.inputs[name].CopyFrom(tf.make_tensor_proto(batch))
                writer.write(log.SerializeToString())


def _signatures(version):
    saved_model = saved_model_pb2.SavedModel.FromString((version / "saved_model.pb").read_bytes())
    [graph] = saved_model.meta_graphs
    definitions = graph.signature_def.items()
    # TensorFlow lists the initialization among the signatures; it has no inputs.
    return sorted((name, definition) for name, definition in definitions if definition.inputs)
