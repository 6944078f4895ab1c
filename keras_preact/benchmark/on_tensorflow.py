"""Parts of a measurement that our networks and stock Keras share."""

import tempfile
import time
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from keras_preact.exporting.formats.saved_model import SessionModel

MEAN, STD = 127.5, 73.6  # of uniform noise in 0 to 255

_SIGNATURE = "serving_default"


def device() -> tuple[str, float | None]:
    """(name of the first GPU, peak of its allocated memory in MiB), or ("CPU", None)."""
    gpus = tf.config.list_physical_devices("GPU")
    if not gpus:
        return "CPU", None
    name = tf.config.experimental.get_device_details(gpus[0]).get("device_name", "GPU")
    return name, tf.config.experimental.get_memory_info("GPU:0")["peak"] / 2**20


def prepare_serving(export: Callable[[str], None], images: np.ndarray) -> Callable[[int], float]:
    """Loads an export into a plain session, as TensorFlow Serving does.

    Args:
        export: writes a SavedModel to a folder.
        images: (batch, height, width, channels), of the dtype that the export takes.

    Returns:
        take(steps), which returns the seconds that as many requests took.
    """
    with tempfile.TemporaryDirectory() as folder:
        export(f"{folder}/1")
        session = SessionModel(f"{folder}/1")
    [name] = session.meta_graph.signature_def[_SIGNATURE].inputs

    def take(steps):
        start = time.perf_counter()
        for _ in range(steps):
            session(_SIGNATURE, **{name: images})
        return time.perf_counter() - start

    return take
