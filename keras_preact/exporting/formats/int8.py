"""int8 TFLite files whose residual stream keeps the precision that a deep net needs.

Each addition of a residual unit rounds the whole stream to 8 bits, and a stream of hundreds of
additions loses to rounding what the units add. TFLite can take each addition in float32, between
convolutions in int8.
"""

import dataclasses
import functools
from collections.abc import Callable, Container, Sequence

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from keras_preact.exporting.checks.parity import THROUGHPUT_BATCH, answers
from keras_preact.exporting.formats import ranges
from keras_preact.exporting.formats.additions import Addition, Distortion, distortions, find
from keras_preact.exporting.formats.flatbuffer import operation, unpack
from keras_preact.support.console import say
from keras_preact.support.errors import RunError

ADDITIONS = ("auto", "int8", "float")
HELD_OUT_IMAGES = 200
# As --saved_model_agreement_percent demands of a SavedModel in lower precision.
LEAST_AGREEMENT = 0.95
_MEASURED_IMAGES = 8
_DEEP = 30

# Reads a file: from uint8 images to probabilities (batch, classes).
Read = Callable[[bytes], Callable[[np.ndarray], np.ndarray]]


@dataclasses.dataclass(frozen=True)
class Images:
    """Training images as evaluation crops them, uint8 (count, height, width, channels).

    Args:
        calibration: set the ranges of the activations.
        held_out: others, on which int8 files are compared with float32.
    """

    calibration: np.ndarray
    held_out: np.ndarray


@dataclasses.dataclass(frozen=True)
class Attempt:
    """An int8 file that was tried, and how often it answers as float32 does.

    Args:
        ranges: of the activations: "tensorflow", of its own calibration; "observed", from the
            least to the largest value; or "narrowed", of the least squared error.
        float_additions: number of additions in float32.
        agreement: share of equal answers on the held-out images, 0 to 1.
        size_bytes: of the file.
    """

    ranges: str
    float_additions: int
    agreement: float
    size_bytes: int


@dataclasses.dataclass(frozen=True)
class Int8Report:
    """What an int8 file loses in the residual stream, and what was done against it.

    Args:
        images: number of held-out images.
        attempts: the files that were tried, in their order; all in int8 first.
        written: the number of the one that was written, counted from 0.
        before: the distortion at each addition, with all in int8.
        after: the same of the file that was written.
    """

    images: int
    attempts: Sequence[Attempt]
    written: int
    before: Sequence[Distortion]
    after: Sequence[Distortion]

    @property
    def float_units(self) -> list[str]:
        """The units whose additions are in float32."""
        return [each.unit for each in self.after if each.rounding_decibels is None]


def convert(
    exact: bytes,
    plain: Callable[[], bytes],
    read: Read,
    images: Images,
    additions: str,
    multi_label: bool = False,
) -> tuple[bytes, Int8Report | None]:
    """Returns an int8 file, and a report if the network has residual additions.

    Files are tried in this order until one answers as float32 does; if none does, the one that
    does so most often is taken. In a net of more than 30 additions the first is left out:
    TensorFlow's calibration takes minutes there and fails, as it reads what a unit adds only
    after the addition in place has overwritten it by the sum.

    | ranges of activations | additions in float32 | additions |
    |---|---|---|
    | TensorFlow's | none | auto, int8 |
    | observed | none | auto, int8 |
    | narrowed | none | auto, int8 |
    | narrowed | half, those that lose most | auto |
    | narrowed | all | auto, float |

    With an addition, what scales, shifts and rectifies its sum before the next convolution is in
    float32.

    Args:
        exact: the contents of the float32 file.
        plain: makes the file with TensorFlow's ranges.
        read: reads a file.
        images: to calibrate and to compare on.
        additions: one of `ADDITIONS`.
        multi_label: whether an image may have several labels.

    Raises:
        RunError: if the network has operations without an int8 form.
    """
    found = find(exact)
    if not found:
        return plain(), None
    trials = _Trials(exact, read, images, found, multi_label)
    if additions != "float" and len(found) <= _DEEP:
        trials.take(plain(), "tensorflow", 0)
    counts = {"int8": [0], "float": [len(found)], "auto": [0, len(found) // 2, len(found)]}
    for kind, count in [("observed", 0), *(("narrowed", each) for each in counts[additions])]:
        if additions != "float" and trials.agrees:
            break
        trials.make(kind, count)
    last = len(trials.attempts) - 1
    return trials.result(last if additions == "float" or trials.agrees else trials.best)


class _Trials:
    """Files that were tried, for one network."""

    def __init__(self, exact, read, images, additions, multi_label):
        self._exact, self._read, self._images = exact, read, images
        self._additions, self._multi_label = additions, multi_label
        self._expected = self._answers(exact)
        self.attempts, self._files = [], []

    def make(self, kind: str, float_count: int):
        """Tries a file with ranges of a kind and the additions that lose most in float32."""
        names = [name for each in self._worst[:float_count] for name in each.tensors]
        file = ranges.quantize(self._exact, getattr(self, f"_{kind}"), names)
        check_integer(file, names)
        self.take(file, kind, float_count)

    def take(self, file: bytes, kind: str, float_count: int):
        """Adds a file, and how often it answers as float32 does."""
        agreement = float(np.mean(self._answers(file) == self._expected))
        self._files.append(file)
        self.attempts.append(Attempt(kind, float_count, agreement, len(file)))
        say(
            f"  ranges {kind}, {float_count} of {len(self._additions)} additions in float32: "
            f"{agreement:.1%} of {len(self._expected)} answers as in float32"
        )

    @property
    def agrees(self) -> bool:
        """Whether the last file answers as float32 does."""
        return bool(self.attempts) and self.attempts[-1].agreement >= LEAST_AGREEMENT

    @property
    def best(self) -> int:
        """The number of the file that agrees most."""
        return max(range(len(self.attempts)), key=lambda i: self.attempts[i].agreement)

    def result(self, chosen: int) -> tuple[bytes, Int8Report]:
        """Returns the file of an attempt, and the report."""
        file, before = self._files[chosen], self._before
        after = self._distortions(file) if chosen else before
        return file, Int8Report(len(self._expected), tuple(self.attempts), chosen, before, after)

    @functools.cached_property
    def _observed(self):
        return ranges.observed(self._exact, self._images.calibration)

    @functools.cached_property
    def _narrowed(self):
        return ranges.least_error(self._exact, self._images.calibration, self._observed)

    @functools.cached_property
    def _before(self):
        return self._distortions(self._files[0])

    @property
    def _worst(self) -> list[Addition]:
        """The additions, that which loses most by rounding first."""
        if not self._files:
            return self._additions
        order = np.argsort([each.rounding_decibels for each in self._before], kind="stable")
        return [self._additions[position] for position in order]

    def _distortions(self, file):
        images = self._images.held_out[:_MEASURED_IMAGES]
        return tuple(distortions(self._exact, file, self._additions, images))

    def _answers(self, file):
        predict, images = self._read(file), self._images.held_out
        batches = (
            images[start : start + THROUGHPUT_BATCH]
            for start in range(0, len(images), THROUGHPUT_BATCH)
        )
        taken = answers(np.concatenate([predict(each) for each in batches]), self._multi_label)
        # With several labels an image, an answer is all of them.
        return np.array([row.tobytes() for row in taken])


def check_integer(file: bytes, float_tensors: Container[str] = ()) -> None:
    """Raises RunError if operations compute in float32 that should not.

    The converter leaves those that have no int8 form.

    Args:
        file: the contents of an int8 file.
        float_tensors: names of the results that may be float32.
    """
    model = unpack(file)
    lacking = {
        operation(model, operator)
        for graph in model.subgraphs
        for operator in graph.operators
        for output in operator.outputs
        if graph.tensors[output].type == schema.TensorType.FLOAT32
        and graph.tensors[output].name.decode() not in float_tensors
    }
    # The converter puts one before each float32 operation.
    lacking.discard("DEQUANTIZE")
    if lacking:
        raise RunError(f"TFLite cannot compute in int8: {', '.join(sorted(lacking))}.")
