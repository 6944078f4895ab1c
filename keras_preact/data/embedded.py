"""Images that need no download: scikit-learn's digits and photographs, and synthetic ones."""

import importlib.resources
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from keras_preact.data.augmentation import resize
from keras_preact.data.sources import InMemory

# Every fifth of the 1,797 digits is for evaluation: 360 images, 1,437 for training.
DIGITS_EVAL_EVERY = 5
# Smallest and largest sides of a part of a photograph, of those that fit into it.
_PART_SIDES = (0.2, 1.0)


def digits() -> tuple[InMemory, InMemory, list[str]]:
    """Handwritten digits, 8x8x1: (train, eval, class names). Images 0, 5, 10, ... are for eval.

    The test part of the UCI data set "Optical Recognition of Handwritten Digits",
    embedded in scikit-learn. Training and evaluation images come from the same 13 writers.
    """
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images = np.round(bunch.images * (255 / 16)).astype(np.uint8)[..., None]
    labels = bunch.target.astype(np.int32)
    is_eval = np.arange(len(labels)) % DIGITS_EVAL_EVERY == 0
    train, evaluation = (InMemory(images[mask], labels[mask]) for mask in (~is_eval, is_eval))
    return train, evaluation, [str(name) for name in bunch.target_names]


def synthetic(image_size: int = 32) -> tuple[InMemory, InMemory, list[str]]:
    """Noise around ten random patterns, one a class: (train, eval, class names).

    1,024 training and 256 evaluation images, image_size x image_size x 3, the same
    at every call. For trying out a configuration and for measuring speed.
    """
    generator = np.random.Generator(np.random.Philox(0))
    patterns = generator.integers(64, 192, size=(10, image_size, image_size, 3), dtype=np.uint8)
    splits = []
    for count in (1024, 256):
        labels = np.arange(count, dtype=np.int32) % len(patterns)
        noise = generator.integers(0, 64, size=(count, image_size, image_size, 3), dtype=np.uint8)
        splits.append(InMemory(patterns[labels] + noise, labels))
    return *splits, [f"pattern{number}" for number in range(len(patterns))]


def photographs(image_shape: Sequence[int], count: int, seed: int = 0) -> np.ndarray:
    """Random parts of the two photographs in scikit-learn, uint8 (count, height, width, channels).

    They are images as nets see them, of classes that nobody knows: for comparing two programs
    that compute the same net.

    Args:
        image_shape: (height, width, channels), 1 or 3 channels.
        count: number of images.
        seed: other seeds give other parts.
    """
    height, width, channels = image_shape
    folder = importlib.resources.files("sklearn.datasets") / "images"
    pictures = [
        tf.io.decode_jpeg((folder / name).read_bytes()).numpy()
        for name in ("china.jpg", "flower.jpg")
    ]
    generator, parts = np.random.Generator(np.random.Philox(seed)), []
    for number in range(count):
        picture = pictures[number % 2]
        largest = min(picture.shape[0] / height, picture.shape[1] / width)
        scale = largest * generator.uniform(*_PART_SIDES)
        sides = [max(1, int(scale * side)) for side in (height, width)]
        top, left = (
            generator.integers(whole - side + 1)
            for whole, side in zip(picture.shape, sides, strict=False)
        )
        part = picture[top : top + sides[0], left : left + sides[1]]
        parts.append(resize(part, height, width).numpy())
    images = np.stack(parts)
    return images if channels == 3 else tf.image.rgb_to_grayscale(images).numpy()
