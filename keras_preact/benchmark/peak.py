"""Measures the arithmetic peak: echo '{"precision": "float32"}' | python -P peak.py"""

import time
import types

import tensorflow as tf

from keras_preact.benchmark.measure import answer
from keras_preact.benchmark.on_tensorflow import device

DTYPES = {"float32": "float32", "mixed_bfloat16": "bfloat16", "mixed_float16": "float16"}

# The smallest is quick on any device, the largest fills the largest device.
SIZES = (512, 1024, 2048, 4096, 8192)
ENOUGH_SECONDS = 0.1
PRODUCTS = 10


def measure_peak(precision: str) -> dict:
    """Times products of two large square matrices on the device that trains; returns the best.

    The size doubles until a product takes long enough to time.

    Returns:
        peak_teraflops: 10^12 operations a second, a multiply-add counted as two;
        size: of the matrices; device: its name.
    """
    # Fetching one element waits for the product.
    multiply = tf.function(lambda matrix: tf.matmul(matrix, matrix)[0, 0])
    best, best_size = 0.0, None
    for size in SIZES:
        matrix = tf.cast(tf.random.stateless_normal((size, size), seed=(0, 0)), DTYPES[precision])
        _seconds(multiply, matrix)
        seconds = [_seconds(multiply, matrix)]
        while len(seconds) < PRODUCTS:
            seconds.append(_seconds(multiply, matrix))
            if sum(seconds) > PRODUCTS * ENOUGH_SECONDS:
                break
        teraflops = 2 * size**3 / min(seconds) / 1e12
        if teraflops > best:
            best, best_size = teraflops, size
        if min(seconds) > ENOUGH_SECONDS:
            break
    return {"peak_teraflops": best, "size": best_size, "device": device()[0]}


def _seconds(multiply, matrix):
    start = time.perf_counter()
    multiply(matrix).numpy()
    return time.perf_counter() - start


def _answer(argument: types.SimpleNamespace) -> dict:
    return measure_peak(argument.precision)


if __name__ == "__main__":
    answer(_answer)
