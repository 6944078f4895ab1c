"""Comparisons of an export with the Keras model on evaluation images."""

import dataclasses
from collections.abc import Sequence

import numpy as np
import tensorflow as tf
from etils import epath

from keras_preact.data.sources import spread
from keras_preact.exporting.checks import parity, tolerances
from keras_preact.exporting.checks.parity import Agreement, Predict
from keras_preact.exporting.config import ExportConfig
from keras_preact.exporting.export_folder import SAVED_MODEL
from keras_preact.exporting.formats.decoding import is_decodable
from keras_preact.exporting.formats.saved_model import SessionModel
from keras_preact.exporting.graph.rewriting import Step
from keras_preact.exporting.report import KERAS, Artifact, describe_files
from keras_preact.exporting.source import Source
from keras_preact.support import tf32
from keras_preact.support.console import bar

# Rewriting steps and image files are compared on a sample, spread evenly.
SAMPLE_IMAGES = 64
_SIGNATURE = "serving_bytes"


@dataclasses.dataclass(frozen=True)
class WrittenFile:
    """A file, or a folder of files, of an export.

    Args:
        name: such as "tflite/int8".
        kind: decides on its tolerance: one of `tflite.KINDS`, or a precision of the SavedModel,
            such as "saved_model_float32".
        path: of the file or folder.
        predict: computes with what has been read from the path.
    """

    name: str
    kind: str
    path: epath.Path
    predict: Predict


def saved_model_kind(config: ExportConfig) -> str:
    """The kind of an export's SavedModel, as in `WrittenFile`."""
    return f"saved_model_{config.saved_model_precision}"


class Verification:
    """Comparisons with one Keras model.

    Args:
        source: the model and its data.
        keras: computes with the model.
        config: of the export.
    """

    @tf32.off()
    def __init__(self, source: Source, keras: Predict, config: ExportConfig):
        self._data, self._keras, self._config = source.data, keras, config
        self._preprocessing = source.preprocessing
        self._sample = spread(source.data.info.eval_count, SAMPLE_IMAGES)
        batches = source.data.eval(len(self._sample), indices=self._sample)
        [(self.sample_images, self._labels, _)] = batches.as_numpy_iterator()
        self._expected = keras(self.sample_images)

    @tf32.off()
    def compare_steps(self, steps: Sequence[Step]) -> list[dict]:
        """Returns the largest difference of a probability after each step of rewriting."""
        compared = []
        for step in steps:
            got = self._network(step.graph)(tf.constant(self.sample_images)).numpy()
            difference = float(np.abs(got - self._expected).max())
            compared.append({"step": step.description, "max_difference": difference})
        return compared

    def _network(self, graph):
        preprocessing = self._preprocessing

        @tf.function
        def predict(images):
            logits = graph(preprocessing.normalize(images), graph.weights)["logits"]
            return preprocessing.probabilities(logits)

        # TensorFlow would warn of a function that is traced again and again.
        shape = [None, *preprocessing.image_shape]
        return predict.get_concrete_function(tf.TensorSpec(shape, tf.uint8))

    @tf32.off()
    def compare_serving_bytes(self, session: SessionModel) -> dict:
        """Returns the number of files that `serving_bytes` took, and its largest difference.

        Raises:
            ParityError: if it exceeds the tolerance of the SavedModel.
            ValueError: if it refuses one of the files.
        """
        files = [self._data.eval_file(index) for index in self._sample]
        taken = np.array([is_decodable(file) for file in files])
        if not taken.any():
            return {"images": 0, "max_difference": None}
        batch = np.array([file for file in files if is_decodable(file)], object)
        answer = session(_SIGNATURE, image_bytes=batch)
        names = self._names(self._sample[taken])
        for position, error in enumerate(answer["error"]):
            if error:
                raise ValueError(
                    "serving_bytes must take the evaluation images. It says of "
                    f"{names(position)}: {error.decode()}"
                )
        predictors = {
            KERAS: lambda files: self._expected[taken],
            _SIGNATURE: lambda files: answer["probabilities"],
        }
        batches = [(batch, self._labels[taken], np.ones(len(batch)))]
        agreements = parity.compare(predictors, KERAS, batches, names)
        allowed = {
            _SIGNATURE: tolerances.tolerance_of(saved_model_kind(self._config), self._config)
        }
        tolerances.check(agreements, allowed)
        return {"images": len(batch), "max_difference": agreements[_SIGNATURE].max_difference}

    def compare_files(
        self, files: Sequence[WrittenFile], root: epath.Path
    ) -> tuple[list[Artifact], dict[str, Agreement]]:
        """Compares files with the Keras model.

        Args:
            files: they lie below root.
            root: the export's folder.

        Returns:
            The figures of the Keras model and then of the files within their tolerances; and the
            agreements of the others, by name.

        Raises:
            ParityError: if the SavedModel exceeds its tolerance.
        """
        predictors = {KERAS: self._keras, **{file.name: file.predict for file in files}}
        agreements = self._compare(predictors)
        allowed = {file.name: tolerances.tolerance_of(file.kind, self._config) for file in files}
        essential = {name: allowed[name] for name in allowed if name == SAVED_MODEL}
        tolerances.check(agreements, essential)
        exceeding = {
            name: agreements[name] for name in allowed if allowed[name].excess(agreements[name])
        }
        files = [file for file in files if file.name not in exceeding]
        predictors = {name: predictors[name] for name in predictors if name not in exceeding}
        speeds = parity.measure_speed(predictors, self.sample_images[0])
        artifacts = [
            Artifact(KERAS, agreements[KERAS], speeds[KERAS]),
            *(
                Artifact(
                    file.name,
                    agreements[file.name],
                    speeds[file.name],
                    str(file.path.relative_to(root)),
                    allowed[file.name],
                    describe_files(root, file.path),
                )
                for file in files
            ),
        ]
        return artifacts, exceeding

    def _compare(self, predictors):
        count = self._data.info.eval_count
        indices = spread(count, self._config.eval_images or count)
        batch_size = min(parity.THROUGHPUT_BATCH, len(indices))
        batches = bar(
            self._data.eval(batch_size, indices=indices).as_numpy_iterator(),
            desc=f"Comparing on {len(indices):,} images (--eval_images)",
            total=-(-len(indices) // batch_size),
        )
        return parity.compare(predictors, KERAS, batches, self._names(indices))

    def _names(self, indices):
        return lambda position: self._data.eval_name(indices[position])
