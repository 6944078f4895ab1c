"""Writes an export and requests to it: python -P exports.py < ORDER prints a line of JSON."""

import base64
import json
import pathlib
import shutil
import types

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2
from tensorflow_serving.apis import predict_pb2

from keras_preact.benchmark.measure import answer, load
from keras_preact.exporting.serving import warmup

# A photograph as the web shrinks it, for nets that resize.
PHOTOGRAPH_SHAPE = (375, 500, 3)
# Nets of smaller images are sent files of their own size.
PHOTOGRAPH_FROM_PIXELS = 128
JPEG_QUALITY = 90

_NOISE = 8.0
_GREY = 127.5


def write(order: types.SimpleNamespace) -> dict:
    """Writes a SavedModel, its warm-up requests, and bodies of requests.

    Args:
        order: job, a `job.Job`; folder, which exists; name, of the model on the server; path, of
            the URL that predicts; warmup_images, the sizes of the largest warm-up requests, for
            each of which a file warmup_SIZE appears. Stock Keras has no warm-up requests.

    Returns:
        By name, requests of one image: protocol, "rest" or "grpc"; path, of the URL; body, a
        file; broken_body, a file whose image cannot be decoded, or None.
    """
    job, folder = order.job, pathlib.Path(order.folder)
    version = folder / "saved_model" / "1"
    load(job.framework).export(job, str(version))
    image = picture((job.image_size, job.image_size, 3))
    is_large = job.image_size >= PHOTOGRAPH_FROM_PIXELS
    photograph = picture(PHOTOGRAPH_SHAPE) if is_large else image
    jpeg = tf.io.encode_jpeg(photograph, quality=JPEG_QUALITY).numpy()
    if job.framework == "keras_preact":
        for size in order.warmup_images:
            warmup.write(version, order.name, image, jpeg, sorted({1, size}))
            shutil.move(version / warmup.FILE, folder / f"warmup_{size}")
    signatures = _read_signatures(version)
    # What takes floats takes normalized images.
    is_raw = tf.as_dtype(signatures["serving_default"].dtype).is_integer
    pixels = image if is_raw else ((image - _GREY) / _GREY).astype(np.float32)
    contents = {"pixels": ("serving_default", pixels, None)}
    if "serving_bytes" in signatures:
        contents["jpeg"] = ("serving_bytes", jpeg, jpeg[: len(jpeg) // 2])
    requests = {}
    for content, (signature, value, broken) in contents.items():
        for protocol, encode in {"rest": _json, "grpc": _message}.items():
            name, bodies = f"{protocol}_{content}", {}
            for kind, each in {"body": value, "broken_body": broken}.items():
                bodies[kind] = None
                if each is not None:
                    path = folder / f"{name}.{kind}"
                    path.write_bytes(encode(order.name, signature, signatures[signature], each))
                    bodies[kind] = str(path)
            requests[name] = {"protocol": protocol, "path": order.path, **bodies}
    return requests


def picture(shape: tuple[int, int, int]) -> np.ndarray:
    """An image that compresses as a photograph does: smooth, with noise; uint8."""
    rng = np.random.default_rng(0)
    smooth = tf.image.resize(rng.uniform(0, 255, (6, 8, 3)), shape[:2], "bicubic").numpy()
    return (smooth + rng.normal(0, _NOISE, shape)).clip(0, 255).astype(np.uint8)


def _read_signatures(version):
    """The one input of each signature, by the signature's name: its `name` and `dtype`."""
    saved_model = saved_model_pb2.SavedModel.FromString((version / "saved_model.pb").read_bytes())
    [graph] = saved_model.meta_graphs
    found = {}
    for signature, definition in graph.signature_def.items():
        # The initialization is listed among the signatures; it has no inputs.
        for name, info in definition.inputs.items():
            found[signature] = types.SimpleNamespace(name=name, dtype=info.dtype)
    return found


def _json(model, signature, source, value):
    if isinstance(value, bytes):
        instance = {source.name: {"b64": base64.b64encode(value).decode()}}
    else:
        # The shortest digits of a float32, not those of the float64 beside it.
        shortest = value if value.dtype == np.uint8 else value.astype(str).astype(np.float64)
        instance = shortest.tolist()
    return json.dumps({"signature_name": signature, "instances": [instance]}).encode()


def _message(model, signature, source, value):
    request = predict_pb2.PredictRequest()
    request.model_spec.name = model
    request.model_spec.signature_name = signature
    batch = [value] if isinstance(value, bytes) else value[None]
    request.inputs[source.name].CopyFrom(tf.make_tensor_proto(batch, source.dtype))
    return request.SerializeToString()


if __name__ == "__main__":
    answer(write)
