"""Images and data sets small enough for a test, and Pillow's reading of them."""

import io
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds
from image_encoding import encode, smooth_image
from PIL import Image

from keras_preact.data import folder


def decode(encoded):
    """Decodes a file by Pillow: uint8 (height, width, 3)."""
    return np.asarray(Image.open(io.BytesIO(encoded)).convert("RGB"))


def pillow_resize(image, height, width):
    # Pillow's BILINEAR is a triangle as wide as the scale asks for, as TensorFlow's is
    # with antialias=True.
    return np.asarray(Image.fromarray(image).resize((width, height), Image.BILINEAR))


def pillow_center_crop(image, size):
    """ImageNet's evaluation crop: the short side to size * 256 / 224, then the centre."""
    height, width = image.shape[:2]
    short = round(size * 256 / 224)
    scale = short / min(height, width)
    height, width = round(height * scale), round(width * scale)
    top, left = (height - size) // 2, (width - size) // 2
    return pillow_resize(image, height, width)[top : top + size, left : left + size]


def difference(left, right):
    """Absolute difference of two uint8 images, without wrapping around."""
    assert left.shape == right.shape
    return np.abs(left.astype(int) - right.astype(int))


def load_folder(data_dir, image_size, **options):
    """Training images, evaluation images and class names of a folder."""
    loaded = folder.load(data_dir, image_size, **options)
    return loaded.train, loaded.evaluation, loaded.class_names


def write_files(root, files):
    """Writes {relative path: bytes} below a folder."""
    for path, data in files.items():
        target = Path(root) / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)


def small_examples(count, seed=0):
    """Noise of 6x8 pixels, of two classes by turns."""
    pixels = np.random.default_rng(seed).integers(0, 256, (count, 6, 8, 3), dtype=np.uint8)
    return [{"image": image, "label": n % 2} for n, image in enumerate(pixels)]


def image_features(shape, classes=("ant", "bee")):
    return {
        "image": tfds.features.Image(shape=shape),
        "label": tfds.features.ClassLabel(names=classes),
    }


def folder_of_images(root, classes=("ant", "bee")):
    """Writes one small image for each class of train/ and val/."""
    for split in ("train", "val"):
        for number, name in enumerate(classes):
            image = encode(smooth_image(20 + number, 30, seed=number))
            write_files(root, {f"{split}/{name}/{number}.png": image})


def prepare_tfds(data_dir, dataset_name, splits, features, *, keys=("image", "label"), **options):
    """Prepares a data set of tensorflow-datasets from {split: [example, ...]}.

    Options are version, "1.0.0" by default, and shards, the number of files of a split.
    """
    version, shards = options.get("version", "1.0.0"), options.get("shards", 1)

    class Prepared(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        name = dataset_name
        VERSION = tfds.core.Version(version)

        def _info(self):
            return tfds.core.DatasetInfo(
                builder=self,
                features=tfds.features.FeaturesDict(features),
                supervised_keys=keys,
            )

        def _split_generators(self, dl_manager):
            return {split: self._generate_examples(some) for split, some in splits.items()}

        def _generate_examples(self, examples):
            yield from enumerate(examples)

    builder = Prepared(data_dir=str(data_dir))
    config = tfds.download.DownloadConfig(num_shards=shards, try_download_gcs=False)
    builder.download_and_prepare(download_config=config)
    return builder
