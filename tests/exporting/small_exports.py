"""Small runs, small exports of them, and readers of exports that are not ours."""

import contextlib
import dataclasses
import itertools
import json
import pathlib
import shutil
import sys
import time

import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter
from sklearn.datasets import load_digits

from keras_preact import exporting
from keras_preact.data import datasets
from keras_preact.exporting import ExportConfig
from keras_preact.support import program
from keras_preact.training import TrainConfig, run
from keras_preact.training.checkpoints.checkpoint import find
from keras_preact.training.run import restore_model
from keras_preact.training.run_folder import RunFolder
from keras_preact.training.steps.evaluation import Evaluation

COLOURS = {"blue": (60, 90, 170), "green": (70, 150, 80), "red": (170, 80, 70)}


@dataclasses.dataclass(frozen=True)
class Run:
    """A finished run.

    Args:
        folder: of the run.
        evaluation: the last figures of train.py.
    """

    folder: pathlib.Path
    evaluation: Evaluation


@contextlib.contextmanager
def leaping_clock():
    """A clock that advances a second at each reading: one call fills a round of measured speed."""
    ticks = itertools.count()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(time, "perf_counter", lambda: float(next(ticks)))
        yield


class _Listener:
    """A stream that acts once when certain words are written."""

    def __init__(self, stream, words, act):
        self._stream, self._words, self._act, self.heard = stream, words, act, False

    def write(self, text):
        if self._words in text and not self.heard:
            self._act()
            self.heard = True
        return self._stream.write(text)

    def __getattr__(self, name):
        return getattr(self._stream, name)


@contextlib.contextmanager
def when_said(words, act):
    """Acts at the moment when a program of this process prints the words."""
    with contextlib.redirect_stdout(_Listener(sys.stdout, words, act)) as listener:
        yield
    assert listener.heard


def train(folder, **options):
    """A run that is evaluated only at its end."""
    config = {"depth": 8, "warmup_steps": 2, "eval_epochs": 100, "precision": "float32", **options}
    return Run(folder, run(TrainConfig(run_dir=str(folder), **config)))


def export(run_dir, **options):
    """The folder of an export; by default only a SavedModel, compared on a few images."""
    options = {"tflite": (), "eval_images": 20, **options}
    with leaping_clock():
        version = exporting.run(ExportConfig(run_dir=str(run_dir), **options))
    return pathlib.Path(version).parent.parent


def refused(run_dir, out, capsys, code=1, **options):
    """The message of an export in this process that ends with a code, as export.py does."""
    with pytest.raises(SystemExit) as ended, program.ending(ExportConfig, "nothing is done"):
        export(run_dir, output_dir=str(out), **options)
    assert ended.value.code == code
    return capsys.readouterr().err


@contextlib.contextmanager
def spoiled(out, name, weights, others, copy):
    """Changes weights in a file of an unfinished export, and copies the file's folder.

    It does so when all files have been written, and before they are read and compared.
    """

    def spoil():
        path = out.parent / f".{out.name}.unfinished" / ".stage" / name
        before = path.read_bytes()
        assert before.count(weights.tobytes()) == 1
        path.write_bytes(before.replace(weights.tobytes(), others.tobytes()))
        shutil.copytree(path.parent, copy)

    with when_said("Comparing with the Keras model", spoil):
        yield


def newest_model(run_dir):
    folder = RunFolder(run_dir)
    return restore_model(folder, find(folder.checkpoints, "newest"))


def classifier_kernel(run_dir):
    return newest_model(run_dir).get_layer("logits").kernel.numpy()


def read_report(folder):
    return json.loads((folder / "report.json").read_text())


def artifact(folder, name):
    [found] = [each for each in read_report(folder)["artifacts"] if each["name"] == name]
    return found


def tree(folder):
    """Bytes and modification time of each file in a folder, by path; None for folders."""
    return {
        str(path.relative_to(folder)): (path.read_bytes(), path.stat().st_mtime_ns)
        if path.is_file()
        else None
        for path in pathlib.Path(folder).rglob("*")
    }


def load_data(run_dir):
    config, _ = RunFolder(run_dir).read()
    return datasets.load(config.dataset, data_dir=config.data_dir, image_size=config.image_size)


def evaluation_images(data):
    """All evaluation images and labels, in order."""
    [(images, labels, weights)] = data.eval(data.info.eval_count).as_numpy_iterator()
    assert weights.all()
    return images, labels


def softmax(logits):
    exponentials = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    return exponentials / exponentials.sum(axis=1, keepdims=True)


def keras_probabilities(run_dir, images):
    """Probabilities of the newest checkpoint: Keras' own predict, the rest in NumPy."""
    _, info = RunFolder(run_dir).read()
    normalized = ((images - np.float64(info.mean)) / info.std).astype(np.float32)
    return softmax(newest_model(run_dir).predict(normalized, verbose=0))


def saved_model_probabilities(folder, version=1, signature="serving_default", **inputs):
    signatures = tf.saved_model.load(str(folder / "saved_model" / str(version))).signatures
    tensors = {name: tf.constant(value) for name, value in inputs.items()}
    return signatures[signature](**tensors)["probabilities"].numpy()


def lite_probabilities(path, images):
    """Probabilities of a TFLite file, by the interpreter alone, one image after the other."""
    interpreter = Interpreter(str(path))
    interpreter.allocate_tensors()
    [source], [result] = interpreter.get_input_details(), interpreter.get_output_details()
    answers = []
    for image in images:
        interpreter.set_tensor(source["index"], image[None].astype(source["dtype"]))
        interpreter.invoke()
        answers.append(interpreter.get_tensor(result["index"])[0])
    scale, zero_point = result["quantization"]
    answers = np.stack(answers)
    return answers if answers.dtype == np.float32 else (answers.astype(float) - zero_point) * scale


def write_photographs(root, counts=(("train", 16), ("val", 6))):
    """Writes JPEG files of many sizes; the colour depends on the class, more or less."""
    rng = np.random.default_rng(0)
    for split, count in counts:
        for name, colour in COLOURS.items():
            for number in range(count):
                height, width = rng.integers(30, 130, 2)
                coarse = rng.normal(colour, 60, (4, 5, 3)).clip(0, 255)
                picture = tf.image.resize(coarse, [height, width], "bicubic")
                picture = tf.saturate_cast(picture, tf.uint8)
                _write(root / split / name / f"{number}.jpg", tf.io.encode_jpeg(picture))


def write_digits(root, train=10, val=3):
    """Writes some of scikit-learn's digits of every class, as PNG files."""
    images, labels = load_digits(return_X_y=True)
    images = np.rint(images.reshape(-1, 8, 8, 1) * 255 / 16).astype(np.uint8)
    for label in range(10):
        chosen = images[labels == label][: train + val]
        for number, image in enumerate(chosen):
            split = "train" if number < train else "val"
            _write(root / split / str(label) / f"{number}.png", tf.io.encode_png(image))


def _write(path, encoded):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encoded.numpy())
