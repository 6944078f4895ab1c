"""Compares all that has been written with the Keras model, on evaluation images."""

import sys
from collections.abc import Sequence

import numpy as np
import tensorflow as tf
from etils import epath
from tqdm import tqdm

from keras_preact.data.sources import spread
from keras_preact.exporting.build import Built
from keras_preact.exporting.checks import parity, tolerances
from keras_preact.exporting.checks.parity import Predict
from keras_preact.exporting.config import ExportConfig
from keras_preact.exporting.formats.decoding import is_decodable, refusal
from keras_preact.exporting.formats.saved_model import SessionModel
from keras_preact.exporting.graph.rewriting import Step
from keras_preact.exporting.report import KERAS, Artifact, describe_files
from keras_preact.exporting.source import Source

# On which steps and files are compared, spread evenly.
SAMPLE_IMAGES = 64
_BYTES = "serving_bytes"


class Proof:
    """Comparisons with one Keras model.

    Args:
        source: the model and its data.
        keras: computes with the model.
        config: of the export.
    """

    def __init__(self, source: Source, keras: Predict, config: ExportConfig):
        self._data, self._keras, self._config = source.data, keras, config
        self._sample = spread(source.data.info.eval_count, SAMPLE_IMAGES)
        batches = source.data.eval(len(self._sample), indices=self._sample)
        [(self.sample_images, self._labels, _)] = batches.as_numpy_iterator()
        self._expected = keras(self.sample_images)

    def of_steps(self, steps: Sequence[Step]) -> list[dict]:
        """For each step of rewriting, how far probabilities are from the Keras model's."""
        proofs = []
        for step in steps:
            got = self._of_graph(step.graph)(tf.constant(self.sample_images))
            difference = float(np.abs(got - self._expected).max())
            proofs.append({"step": step.description, "max_difference": difference})
        return proofs

    def _of_graph(self, graph):
        return tf.function(
            lambda images: tf.nn.softmax(
                graph(self._data.info.normalize(images), graph.weights)["logits"]
            )
        )

    def of_bytes(self, session: SessionModel) -> dict:
        """How far `serving_bytes` is from the Keras model, on those images that it takes.

        Raises:
            ParityError: if it is beyond the tolerance of float32.
            ValueError: if it refuses one of them.
        """
        files = [self._data.eval_file(index) for index in self._sample]
        taken = np.array([is_decodable(file) for file in files])
        if not taken.any():
            return {"images": 0, "max_difference": None}
        batch = np.array([file for file in files if is_decodable(file)], object)
        predictors = {
            KERAS: lambda files: self._expected[taken],
            _BYTES: lambda files: session(_BYTES, image_bytes=files)["probabilities"],
        }
        batches = [(batch, self._labels[taken], np.ones(len(batch)))]
        try:
            agreements = parity.compare(predictors, KERAS, batches)
        except tf.errors.InvalidArgumentError as error:
            raise ValueError(
                f"serving_bytes must take the evaluation images. It says: {refusal(error)}"
            ) from error
        indices = self._sample[taken]
        allowed = {_BYTES: tolerances.tolerance_of("float32", self._config)}
        tolerances.check(agreements, KERAS, allowed, lambda p: self._data.eval_name(indices[p]))
        return {"images": len(batch), "max_difference": agreements[_BYTES].max_difference}

    def of_files(self, built: Sequence[Built], root: epath.Path) -> list[Artifact]:
        """All files, and the Keras model before them, with what has been measured of them.

        Args:
            built: the files, which lie below root.
            root: the export's folder.

        Raises:
            ParityError: if one of them is beyond its tolerance.
        """
        predictors = {KERAS: self._keras, **{each.name: each.predict for each in built}}
        agreements, name_of = self._compare(predictors)
        allowed = {each.name: tolerances.tolerance_of(each.kind, self._config) for each in built}
        tolerances.check(agreements, KERAS, allowed, name_of)
        speeds = parity.measure_speed(predictors, self.sample_images[0])
        paths = {each.name: each.path for each in built}
        return [
            Artifact(
                name,
                agreements[name],
                speeds[name],
                name_of(agreements[name].worst_image),
                str(paths[name].relative_to(root)) if name in paths else None,
                allowed.get(name),
                describe_files(root, paths[name]) if name in paths else {},
            )
            for name in predictors
        ]

    def _compare(self, predictors):
        count = self._data.info.eval_count
        indices = spread(count, self._config.eval_images or count)
        batch_size = min(parity.THROUGHPUT_BATCH, len(indices))
        batches = tqdm(
            self._data.eval(batch_size, indices=indices).as_numpy_iterator(),
            f"Comparing on {len(indices):,} images (--eval_images)",
            total=-(-len(indices) // batch_size),
            disable=not sys.stderr.isatty(),
        )
        agreements = parity.compare(predictors, KERAS, batches)
        return agreements, lambda position: self._data.eval_name(indices[position])
