"""Compares a converted network with the original in the framework that made it."""

import dataclasses
import importlib.util
import json
import pathlib
import subprocess
import sys
import tempfile
from collections.abc import Callable

import keras
import numpy as np

from keras_preact.data.embedded import photographs
from keras_preact.models.foreign import Conversion
from keras_preact.models.foreign.recognize import recognize
from keras_preact.support.errors import RunError

# Largest difference of two logits, in units of the largest logit.
TOLERANCE = 1e-4
_SCRIPT = str(pathlib.Path(__file__).with_name("torch_original.py"))
_IMAGES = 24
_Function = Callable[[np.ndarray], np.ndarray]


class DifferenceError(RunError):
    """A converted network differs from the original."""


class AbsentError(Exception):
    """There is nothing to compare with; the message says why."""


@dataclasses.dataclass(frozen=True)
class Verification:
    """How a converted network compares with the original.

    Args:
        framework: that computed the original's outputs.
        images: compared.
        difference: the largest of two outputs.
        largest: of the original's outputs, by absolute value.
        equal_answers: images whose largest logit is the same one.
    """

    framework: str
    images: int
    difference: float
    largest: float
    equal_answers: int

    def __str__(self) -> str:
        return (
            f"Verified with {self.framework} on {self.images} parts of photographs: largest "
            f"difference of an output {self.difference:.1e}, outputs up to {self.largest:.3g}; "
            f"{self.equal_answers} of {self.images} top-1 answers equal."
        )


def verify(done: Conversion) -> Verification:
    """Compares the outputs of both networks on real images.

    Args:
        done: the conversion, as `sources.conversion` returns it.

    Raises:
        DifferenceError: if they differ by more than `TOLERANCE`.
        AbsentError: if the original's framework is not installed, or there is none.
    """
    framework, original = _original(done)
    preprocessing = done.network.preprocessing
    images = preprocessing.normalize(_photographs(preprocessing.image_shape)).numpy()
    theirs, ours = original(images), done.network(images, training=False).numpy()
    answers = [output.reshape(len(images), -1).argmax(1) for output in (theirs, ours)]
    found = Verification(
        framework,
        len(images),
        float(np.abs(theirs - ours).max()),
        float(np.abs(theirs).max()),
        int((answers[0] == answers[1]).sum()),
    )
    if not found.difference <= TOLERANCE * max(1, found.largest):
        raise DifferenceError(
            "The outputs of both networks must agree to "
            f"{TOLERANCE:g} of the largest. Received: {found}"
        )
    return found


def _photographs(shape):
    """Parts of photographs, uint8 (images, height, width, channels), of any number of channels."""
    *sides, channels = shape
    if channels == 1:
        return photographs(shape, _IMAGES)
    return photographs((*sides, 3), _IMAGES)[..., np.arange(channels) % 3]


def _original(done) -> tuple[str, _Function]:
    found = done.recognized
    if found is None and done.file and done.file.metadata.get("names", "").startswith("timm"):
        found = recognize(done.file.tensors, done.file.path, "timm")
    if found is None:
        raise AbsentError(
            "it is a network of this package, so there is no original to compare with"
        )
    if found.format.name == "keras":
        return _in_keras(done, found)
    return _in_torch(done, found)


def _in_keras(done, found):
    builder = getattr(keras.applications, f"ResNet{found.arguments['depth']}V2")
    options = {"input_shape": done.network.preprocessing.image_shape}
    if found.has_top:
        options["classes"] = done.network.output_shape[-1]
    model = builder(weights=None, include_top=found.has_top, classifier_activation=None, **options)
    tensors = done.file.tensors
    theirs, *others = found.format.classifiers
    for layer in model.layers:
        names = (layer.name, *(others if layer.name == theirs else ()))
        for variable in layer.variables:
            paths = (f"{name}/{variable.name}" for name in names)
            variable.assign(next(tensors[path] for path in paths if path in tensors))
    return f"keras.applications {keras.__version__}", lambda images: model(images).numpy()


def _in_torch(done, found):
    format = found.format.name
    # Of a CIFAR net PyTorch alone computes the few operations.
    packages = ("torch", *(() if format == "akamaster" else (format,)))
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        raise AbsentError(
            f"{' and '.join(missing)} would compute the original, but "
            f"{'is' if len(missing) == 1 else 'are'} not installed here"
        )
    order = {
        "format": format,
        "depth": found.arguments["depth"],
        "classes": done.network.output_shape[-1] if found.has_top else 0,
    }
    title = "PyTorch" if format == "akamaster" else format
    return title, lambda images: _ask(order, done.file.tensors, images)


def _ask(order, tensors, images):
    """Runs `torch_original`; returns its outputs."""
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        (folder / "order.json").write_text(json.dumps(order))
        np.savez(folder / "variables.npz", **tensors)
        np.save(folder / "images.npy", np.ascontiguousarray(images.transpose(0, 3, 1, 2)))
        done = subprocess.run([sys.executable, "-P", _SCRIPT, name], capture_output=True, text=True)
        if done.returncode:
            raise DifferenceError(
                f"{order['format']} cannot compute the original: {done.stderr.strip()[-1000:]}"
            )
        return np.load(folder / "outputs.npy")
