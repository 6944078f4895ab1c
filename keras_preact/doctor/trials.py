"""Trials on TensorFlow, in a process of their own: any of them may abort it.

Started by its path: python -P trials.py. Reads a line of JSON for each trial, [name, options],
and prints one with its answer, after `MARK`: other lines are not meant for the parent.
"""

import contextlib
import csv
import json
import pathlib
import sys
import tempfile
import time
import traceback

import numpy as np

MARK = "@doctor "

# Means over deviations at which a variance is measured.
_OFFSETS = (1.0, 10.0, 100.0, 1000.0)
_NOT_FINITE = 1e300  # JSON has no NaN
_INPUT_SECONDS = 2.0
_TRAINED_STEPS = 5


def devices() -> dict:
    """The GPUs that TensorFlow sees, with names and memory in bytes, and whether TF32 is on."""
    import tensorflow as tf

    import keras_preact.layers  # noqa: F401 - what hinders it is to be known first

    gpus = tf.config.list_physical_devices("GPU")
    details = map(tf.config.experimental.get_device_details, gpus)
    return {
        "gpus": [detail.get("device_name", "GPU") for detail in details],
        "tf32": tf.config.experimental.tensor_float_32_execution_enabled(),
    }


def unit(precision: str, jit: bool, device: str = "CPU:0") -> dict:
    """Compares a residual unit's output and gradients with float64.

    Args:
        precision: name of a Keras dtype policy.
        jit: whether XLA compiles it.
        device: the name of the device that computes.

    Returns:
        errors, by "output" and "gradient": distances from the reference, relative to its length.
    """
    import tensorflow as tf

    from keras_preact.layers import ResidualUnit
    from keras_preact.support import tf32

    rng = np.random.default_rng(0)
    x = rng.normal(1, 2, (8, 16, 16, 16)).astype(np.float32)
    weights = rng.normal(size=x.shape).astype(np.float32)
    with tf32.off(), tf.device(device):
        layer = ResidualUnit(16, dtype=precision)
        layer.build(x.shape)
        kernels = [v for v in layer.trainable_variables if v.name == "kernel"]
        values = [rng.normal(0, np.sqrt(2 / (9 * 16)), v.shape).astype(np.float32) for v in kernels]
        for kernel, value in zip(kernels, values, strict=True):
            kernel.assign(value)

        @tf.function(jit_compile=jit)
        def step(x):
            with tf.GradientTape() as tape:
                tape.watch(x)
                y = tf.cast(layer(x, training=True), tf.float32)
                loss = tf.reduce_sum(y * weights)
            return y, tape.gradient(loss, [x, *(kernel.value for kernel in kernels)])

        y, gradients = step(tf.constant(x))
    expected, *expected_gradients = _reference(x, *values, weights)
    pairs = zip(gradients, expected_gradients, strict=True)
    return {
        "errors": {
            "output": _distance(y, expected),
            "gradient": max(_distance(*pair) for pair in pairs),
        }
    }


def _reference(x, first, second, weights):
    """The unit's output and its gradients by x and both kernels, in NumPy's float64."""
    x, first, second, weights = (np.float64(value) for value in (x, first, second, weights))
    normal1, back1 = _normalize(x)
    active1 = np.maximum(normal1, 0)
    middle = _convolve(active1, first)
    normal2, back2 = _normalize(middle)
    active2 = np.maximum(normal2, 0)
    y = x + _convolve(active2, second)
    by_second = _by_kernel(active2, weights)
    by_middle = back2(_convolve(weights, _transposed(second)) * (normal2 > 0))
    by_first = _by_kernel(active1, by_middle)
    by_x = weights + back1(_convolve(by_middle, _transposed(first)) * (normal1 > 0))
    return y, by_x, by_first, by_second


def _normalize(x, epsilon=1e-5):
    axes = (0, 1, 2)
    scale = 1 / np.sqrt(x.var(axes) + epsilon)
    y = (x - x.mean(axes)) * scale

    def back(gradient):
        return scale * (gradient - gradient.mean(axes) - y * (gradient * y).mean(axes))

    return y, back


def _windows(x):
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    return np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(1, 2))


def _convolve(x, kernel):
    return np.einsum("nyxcij,ijcf->nyxf", _windows(x), kernel, optimize=True)


def _by_kernel(x, gradient):
    return np.einsum("nyxcij,nyxf->ijcf", _windows(x), gradient, optimize=True)


def _transposed(kernel):
    return kernel[::-1, ::-1].swapaxes(2, 3)


def _distance(values, expected):
    values = np.asarray(values, np.float64)
    distance = np.linalg.norm(values - expected) / np.linalg.norm(expected)
    return float(distance) if np.isfinite(distance) else _NOT_FINITE


def variance(jit: bool, device: str = "CPU:0") -> dict:
    """Compares the variances that BN finds far from zero with float64.

    Returns:
        relative_error: the largest.
    """
    import tensorflow as tf

    from keras_preact.layers import BatchNormalization

    noise = np.random.default_rng(0).normal(size=(16, 16, 16, 8))
    worst = 0.0
    with tf.device(device):
        layer = BatchNormalization(momentum=0.0, dtype="float32")
        layer.build(noise.shape)
        normalize = tf.function(lambda x: layer(x, training=True), jit_compile=jit)
        for offset in _OFFSETS:
            x = tf.constant(noise + offset, tf.float32)
            normalize(x)
            expected = tf.cast(x, tf.float64).numpy().var((0, 1, 2))
            error = np.abs(np.asarray(layer.moving_variance) / expected - 1).max()
            worst = max(worst, float(error) if np.isfinite(error) else _NOT_FINITE)
    return {"relative_error": worst}


def input_speed(cores: int) -> dict:
    """JPEGs of 500 x 375 pixels a second that training's input decodes, crops and resizes."""
    import tensorflow as tf

    from keras_preact.data import augmentation

    with tf.device("CPU:0"):
        coarse = tf.random.stateless_uniform([24, 32, 3], (0, 0), 0, 255)
        image = tf.image.resize(coarse, [375, 500], "bicubic")
        # Photographs have grain, without which decoding would be too cheap.
        image += tf.random.stateless_normal(image.shape, (0, 1), 0, 8)
        image = tf.cast(tf.clip_by_value(image, 0, 255), tf.uint8)
        encoded = tf.io.encode_jpeg(image, quality=90)
        draws = tf.random.stateless_uniform([4096, 4], (0, 2), 0, 2**31 - 1, tf.int32)
        images = tf.data.Dataset.from_tensor_slices(draws).repeat()
        images = images.map(
            lambda draw: augmentation.random_resized_crop(encoded, draw, 224), cores
        )
        iterator = iter(images.batch(8 * cores))
        next(iterator)
        start, count = time.perf_counter(), 0
        while (seconds := time.perf_counter() - start) < _INPUT_SECONDS:
            next(iterator)
            count += 8 * cores
    return {"images_per_second": count / seconds, "jpeg_bytes": int(tf.strings.length(encoded))}


def training_speed(depth: int, batch_size: int, steps: int) -> dict:
    """Trains a net on noise, as the benchmark does, in the precision that training chooses.

    Returns:
        as `measure.measure`, and precision; xla, whether it compiles the steps; steps_per_launch,
        as many as training would take at this speed.
    """
    from keras_preact.benchmark import measure, ours
    from keras_preact.benchmark.job import Job, make_net
    from keras_preact.models import architectures
    from keras_preact.training import TrainConfig
    from keras_preact.training.distribution.compute_plan import Machine, make_compute_plan
    from keras_preact.training.distribution.device_images import MOST_STEPS
    from keras_preact.training.steps.pace import Pace

    config = TrainConfig(depth=depth, global_batch_size=batch_size, strategy="one_device")
    plan = make_compute_plan(config, Machine.here())
    size = architectures.resolve(depth).default_input_shape[0]
    job = Job("keras_preact", "train", plan.precision, make_net(depth), batch_size, size, steps)
    measured = measure.measure(ours, job)
    pace = Pace(MOST_STEPS)
    pace.update(batch_size / measured["images_per_second"])
    return {
        **measured,
        "precision": plan.precision,
        "xla": plan.xla,
        "steps_per_launch": pace.next,
    }


def trains_as_processor() -> dict:
    """Takes a few steps of ResNet-8 on the first GPU and on the processor, in float32.

    Returns:
        losses of the last step, by "gpu" and "cpu".
    """
    from keras_preact.support import tf32
    from keras_preact.training import TrainConfig, run

    losses = {}
    with tf32.off(), tempfile.TemporaryDirectory() as folder:
        for name, place in (("gpu", "GPU:0"), ("cpu", "cpu")):
            config = TrainConfig(
                run_dir=f"{folder}/{name}",
                dataset="digits",
                depth=8,
                precision="float32",
                devices=place,
                global_batch_size=64,
                train_steps=_TRAINED_STEPS,
                warmup_steps=0,
            )
            run(config)
            with open(f"{folder}/{name}/metrics.csv", newline="") as file:
                losses[name] = float(list(csv.DictReader(file))[-1]["train_loss"])
    return {"losses": losses}


def all_reduce(count: int) -> dict:
    """Sums over all GPUs, as training does after each step.

    Args:
        count: of the GPUs.

    Returns:
        sums: the sum of 1 to count, as each GPU has it.
    """
    import tensorflow as tf

    strategy = tf.distribute.MirroredStrategy([f"GPU:{index}" for index in range(count)])

    @tf.function
    def total():
        def one():
            context = tf.distribute.get_replica_context()
            own = tf.cast(context.replica_id_in_sync_group, tf.float32) + 1
            return context.all_reduce(tf.distribute.ReduceOp.SUM, own)

        return strategy.run(one)

    sums = strategy.experimental_local_results(total())
    return {"sums": [float(value) for value in sums]}


TRIALS = {
    trial.__name__: trial
    for trial in (
        devices,
        unit,
        variance,
        input_speed,
        training_speed,
        trains_as_processor,
        all_reduce,
    )
}


def main() -> None:
    """Answers one trial after the other, until the input ends."""
    for line in sys.stdin:
        name, options = json.loads(line)
        try:
            with contextlib.redirect_stdout(sys.stderr):
                answer = TRIALS[name](**options)
        except Exception as error:
            # Every kind: whatever breaks here is a finding.
            traceback.print_exc()
            *_, last = ["", *str(error).strip().splitlines()]
            answer = {"error": f"{type(error).__name__}: {last.strip()}"}
        print(f"\n{MARK}{json.dumps(answer)}", flush=True)


if __name__ == "__main__":
    sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))
    main()
