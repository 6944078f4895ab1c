"""Exports in a plain session, as TensorFlow Serving runs them."""

import tempfile
import time
from collections.abc import Callable

import numpy as np

from keras_preact.exporting.formats.saved_model import SessionModel

_SIGNATURE = "serving_default"


def prepare(export: Callable[[str], None], images: np.ndarray) -> Callable[[int], float]:
    """Loads what an export writes.

    Args:
        export: writes a SavedModel to the folder that it is given.
        images: (batch, height, width, channels), of the dtype that the export takes.

    Returns:
        take(steps), which returns the seconds that so many requests took.
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
