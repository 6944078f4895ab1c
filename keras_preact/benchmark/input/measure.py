"""Measures one pipeline in a process of its own: python -P measure.py < JOB prints JSON."""

import time
import types

import tensorflow as tf

from keras_preact.benchmark.measure import answer
from keras_preact.data import datasets
from keras_preact.data.augmentation import EVAL_RESIZE_RATIO
from keras_preact.layers import Preprocessing

# Buffers fill and tf.data finds its parallelism.
_WARM_UP_STEPS = 4
# Of the images that come out: means and deviations are not measured here.
_UNNORMALIZED = Preprocessing((1, 1, 3), (0.0,) * 3, (1.0,) * 3, EVAL_RESIZE_RATIO)


def keras_preact(job: types.SimpleNamespace) -> tf.data.Dataset:
    """The batches that training reads."""
    data = datasets.load(
        "folder",
        data_dir=job.data_dir,
        image_size=job.image_size,
        skip_bad_images=True,
        like=_UNNORMALIZED,
    )
    return data.train(job.batch_size)


def official(job: types.SimpleNamespace) -> tf.data.Dataset:
    """The usual batches: a random part of a JPEG, resized without antialiasing, mirrored.

    Source: tensorflow/models, official/vision/ops/preprocess_ops.py, random_crop_image_v2 and
    resize_image, as official/vision/dataloaders/classification_input.py calls them.
    """
    size = job.image_size

    def fetch(path):
        encoded = tf.io.read_file(path)
        begin, crop, _ = tf.image.sample_distorted_bounding_box(
            tf.io.extract_jpeg_shape(encoded),
            tf.constant([0.0, 0.0, 1.0, 1.0], shape=[1, 1, 4]),
            min_object_covered=0.1,
            aspect_ratio_range=[0.75, 1.33],
            area_range=[0.05, 1.0],
            max_attempts=100,
            use_image_if_no_bounding_boxes=True,
        )
        window = tf.concat([begin[:2], crop[:2]], axis=0)
        image = tf.io.decode_and_crop_jpeg(encoded, window, channels=3)
        image = tf.image.resize(image, [size, size], method="bilinear")
        image = tf.cast(tf.image.random_flip_left_right(image), tf.uint8)
        return tf.ensure_shape(image, [size, size, 3])

    files = tf.data.Dataset.list_files(f"{tf.io.gfile.join(job.data_dir, 'train')}/*/*")
    return (
        files.cache()
        .repeat()
        .map(fetch, num_parallel_calls=tf.data.AUTOTUNE)
        .batch(job.batch_size, drop_remainder=True)
        .prefetch(tf.data.AUTOTUNE)
    )


PIPELINES = {"keras_preact": keras_preact, "official": official}


def measure(job: types.SimpleNamespace) -> dict:
    """Reads some batches, then times others.

    Returns:
        images_per_second; cpu_milliseconds, of all threads for each image.
    """
    batches = iter(PIPELINES[job.pipeline](job))
    for _ in range(_WARM_UP_STEPS):
        next(batches)
    begun, cpu_begun = time.perf_counter(), time.process_time()
    for _ in range(job.steps):
        next(batches)
    images = job.steps * job.batch_size
    seconds, cpu_seconds = time.perf_counter() - begun, time.process_time() - cpu_begun
    return {"images_per_second": images / seconds, "cpu_milliseconds": 1e3 * cpu_seconds / images}


if __name__ == "__main__":
    answer(measure)
