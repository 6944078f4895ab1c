"""Measures signal and gradient in each residual unit between training steps."""

import keras
import tensorflow as tf

from keras_preact.analysis import backward_pass, chain, forward_pass
from keras_preact.data import Dataset
from keras_preact.models import architectures
from keras_preact.training.config import TrainConfig
from keras_preact.training.distribution.distributed_input import naming_unreadable
from keras_preact.training.reporting.propagation_file import Record
from keras_preact.training.steps.loss import binary_cross_entropy

MOST_IMAGES = 32


class PropagationRecorder:
    """Measures a network in training, always on the same images, without changing it.

    The images are the first of the run, without augmentation. Random layers draw the same
    numbers for each record. Nothing is exchanged with other processes, so one may measure
    alone.

    Args:
        model: the network.
        data: the run's.
        config: configuration of the run.

    Raises:
        ValueError: if the images are too few and too small; see `backward_pass.check_images`.
        UnreadableError: if one of the images cannot be read.
    """

    def __init__(self, model: keras.Model, data: Dataset, config: TrainConfig):
        count = min(MOST_IMAGES, config.global_batch_size)
        architecture = architectures.resolve(config.depth, config.stem, config.block)
        backward_pass.check_images(architecture, data.info.image_shape, count, "global_batch_size")
        # Traced from the first call on, so that all records are rounded alike.
        self._network = chain.take_apart(model, traces_all=True)
        # The device of the first replica: other processes may use the other devices.
        self._device = model.variables[0].value.device
        batches = data.train(count, seed=config.seed, augmentation="none")

        def indices():
            return data.train_indices(0, count, seed=config.seed)

        with naming_unreadable(data, "train", indices):
            images, self._labels, *_ = next(batches.as_numpy_iterator())
        with tf.device(self._device):
            self._images = data.info.normalize(images)
        self._loss = _mean_binary_cross_entropy if data.info.multi_label else None

    def measure(self, done: int) -> Record:
        """Measures signal and gradient after `done` steps.

        The loss is the mean cross-entropy of the images, with several labels the binary one,
        without the run's weights and regularization.

        Raises:
            ArithmeticError: as `analysis.backward` does.
        """
        with tf.device(self._device):
            return Record(
                done,
                forward_pass.of_chain(self._network, self._images),
                backward_pass.of_chain(self._network, self._images, self._labels, self._loss),
            )


def _mean_binary_cross_entropy(labels, outputs):
    return tf.reduce_mean(binary_cross_entropy(forward_pass.exact(outputs), labels))
