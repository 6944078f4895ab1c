"""The device that TensorFlow computes on, and its memory."""

import tensorflow as tf


def device() -> tuple[str, float | None]:
    """(name of the first GPU, peak of its allocated memory in MiB), or ("CPU", None)."""
    gpus = tf.config.list_physical_devices("GPU")
    if not gpus:
        return "CPU", None
    name = tf.config.experimental.get_device_details(gpus[0]).get("device_name", "GPU")
    return name, tf.config.experimental.get_memory_info("GPU:0")["peak"] / 2**20
