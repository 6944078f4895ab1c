"""The digits with several labels and with weights, for tests."""

import dataclasses

import numpy as np
from image_encoding import encode

from keras_preact.data import datasets
from keras_preact.data.sources import InMemory
from keras_preact.training import TrainConfig

NAMES = ("odd", "prime", "round", "square", "above 9")


def several_labels():
    """The digits as a data set of five classes, of which an image has none to four."""
    data = datasets.load("digits")
    info = dataclasses.replace(data.info, class_names=NAMES, multi_label=True)

    def labelled(source):
        digits = source.labels
        labels = np.stack(
            [
                digits % 2 == 1,
                np.isin(digits, (2, 3, 5, 7)),
                np.isin(digits, (0, 6, 8, 9)),
                np.isin(digits, (0, 1, 4, 9)),
                digits > 9,
            ],
            axis=1,
        )
        return InMemory(source.images, labels.astype(np.float32))

    return dataclasses.replace(
        data,
        info=info,
        train_source=labelled(data.train_source),
        eval_source=labelled(data.eval_source),
    )


def weighted(data, seed=0):
    """A data set whose training images have random weights of mean 1."""
    weights = np.random.default_rng(seed).uniform(0, 2, len(data.train_source))
    weights = (weights / weights.mean()).astype(np.float32)
    source = dataclasses.replace(data.train_source, weights=weights)
    return dataclasses.replace(data, train_source=source)


def write_csv(folder, several=True, weighted=False):
    """Writes 60 images of 16 x 16 pixels and a CSV of their labels, splits and weights.

    A label tells which parts of an image are bright: with several labels left and top, with one
    the number of them.
    """
    rng = np.random.default_rng(0)
    lines = ["path,label,split" + ",weight" * weighted]
    for number in range(60):
        left, top = rng.random(2) < 0.5
        image = rng.integers(0, 90, (16, 16, 3), dtype=np.uint8)
        image[:, :8] += np.uint8(100 * left)
        image[:8] += np.uint8(60 * top)
        path = folder / f"{number}.png"
        path.write_bytes(encode(image, "PNG"))
        names = [name for name, is_there in (("left", left), ("top", top)) if is_there]
        label = "|".join(names) if several else f"parts{len(names)}"
        split = ("train",) * 6 + ("val",) * 2 + ("test",) * 2
        weight = f",{rng.uniform(0, 2):.3f}" if weighted else ""
        lines.append(f"{path.name},{label},{split[number % 10]}{weight}")
    (folder / "labels.csv").write_text("\n".join(lines) + "\n")
    return folder / "labels.csv"


def of_csv(path, folder, **changes):
    """The configuration of a tiny run on the images of a CSV: four steps, two evaluations."""
    options = {
        "dataset": "csv",
        "data_dir": str(path),
        "image_size": 16,
        "depth": 8,
        "width_multiplier": 0.5,
        "global_batch_size": 18,
        "train_steps": 4,
        "warmup_steps": 0,
        "learning_rate": 0.02,
        "log_steps": 2,
    }
    return TrainConfig(run_dir=str(folder), **{**options, **changes})
