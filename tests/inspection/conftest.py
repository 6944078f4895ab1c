"""Data sets whose facts are known."""

import numpy as np
import pytest
from image_encoding import encode, smooth_image

from keras_preact.inspection import InspectionConfig, inspect

# Training and validation images of each class.
COUNTS = {"ant": (24, 3), "bee": (2, 2)}


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """A folder of two classes, with a copy across splits, one of another label, and damage."""
    root = tmp_path_factory.mktemp("photos")
    number = 0
    for name, counts in COUNTS.items():
        for split, count in zip(("train", "val"), counts, strict=True):
            (root / split / name).mkdir(parents=True)
            for place in range(count):
                image = smooth_image(40 + number, 90 - number, number)
                mode = "L" if number % 7 == 0 else "RGB"
                file = encode(image, "JPEG" if place % 2 else "PNG", mode)
                (root / split / name / f"{place}.{'jpg' if place % 2 else 'png'}").write_bytes(file)
                number += 1
    first = (root / "train/ant/0.png").read_bytes()
    (root / "val/ant/copy.png").write_bytes(first)
    (root / "train/bee/copy.jpg").write_bytes((root / "train/ant/1.jpg").read_bytes())
    (root / "train/bee/damaged.jpg").write_bytes(first[:50])
    (root / "val/ant/<b>.png").write_bytes(b"")
    return root


@pytest.fixture(scope="session")
def report(folder):
    return inspect(InspectionConfig("folder", str(folder), image_size=32, seed=3))


@pytest.fixture(scope="session")
def labelled(tmp_path_factory):
    """A CSV file of images with several labels, some with none."""
    root = tmp_path_factory.mktemp("labelled")
    lines = ["path,label,split"]
    generator = np.random.default_rng(0)
    for number in range(40):
        labels = [
            name for name, share in (("sun", 0.8), ("sea", 0.3)) if generator.random() < share
        ]
        if number == 0:
            labels = ["sun", "sea"]
        (root / f"{number}.png").write_bytes(encode(smooth_image(20, 24, number)))
        lines.append(f"{number}.png,{'|'.join(labels)},{'val' if number % 4 == 3 else 'train'}")
    (root / "labels.csv").write_text("\n".join(lines) + "\n")
    return root / "labels.csv"
