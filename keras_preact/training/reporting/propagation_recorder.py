"""Signal and gradient in each residual unit of a network in training, measured now and then."""

import keras
import tensorflow as tf

from keras_preact.analysis import backward_pass, chain, forward_pass
from keras_preact.data import Dataset, DatasetInfo
from keras_preact.models import architectures
from keras_preact.training.config import TrainConfig
from keras_preact.training.distribution.distributed_input import naming_unreadable
from keras_preact.training.reporting.propagation_file import Record

MOST_IMAGES = 32
# BN makes nothing but 0 of one value, and of two nothing but 1 and -1.
_LEAST_VALUES = 3


def check_images(config: TrainConfig, info: DatasetInfo, count: int, name: str) -> None:
    """Refuses images of which BN would leave no gradient to measure.

    Args:
        config: that the network is built by.
        info: of its data.
        count: images of the batch.
        name: of the flag that gives their number.

    Raises:
        ValueError: if in the last stage a channel has fewer than three values.
    """
    plan = architectures.resolve(config.depth, config.stem, config.block)
    height, width = map(plan.last_size, info.image_shape[:2])
    if count * height * width < _LEAST_VALUES:
        raise ValueError(
            f"{name} must be at least {-(-_LEAST_VALUES // (height * width))} where gradients of "
            f"images of {info.image_shape[0]}x{info.image_shape[1]} pixels are measured: the last "
            f"units see {height}x{width} of each, and of fewer than {_LEAST_VALUES} values of a "
            f"channel BN leaves no gradient. Received: {name}={count}"
        )


class PropagationRecorder:
    """Measures a network as it trains, always on the same images, and leaves all as it is.

    These are the first images of the run, without augmentation, in a batch of their own.
    What is random in the network, such as dropped residuals, is the same at each record.
    One process alone may measure: nothing is exchanged with others.

    Args:
        model: as its builder made it; one that shares traces no longer shows its units.
        data: that the run trains on.
        config: of the run.

    Raises:
        ValueError: if these images are too few and too small; see `check_images`.
        UnreadableError: if one of the images cannot be read.
    """

    def __init__(self, model: keras.Model, data: Dataset, config: TrainConfig):
        count = min(MOST_IMAGES, config.global_batch_size)
        check_images(config, data.info, count, "global_batch_size")
        # Each record, also after a resume, is to be rounded like the others.
        self._network = chain.take_apart(model, traces_all=True)
        # Where the network is, or its first replica: other devices may be another's.
        self._device = model.variables[0].value.device
        batches = data.train(count, seed=config.seed, augmentation="none")

        def indices():
            return data.train_indices(0, count, seed=config.seed)

        with naming_unreadable(data, "train", indices):
            images, self._labels = next(batches.as_numpy_iterator())
        with tf.device(self._device):
            self._images = data.info.normalize(images)

    def measure(self, done: int) -> Record:
        """The signal and the gradient after so many steps.

        The loss is the mean cross-entropy of the images, whatever the run's own.

        Raises:
            ArithmeticError: as `propagation.backward` does.
        """
        with tf.device(self._device):
            return Record(
                done,
                forward_pass.of_chain(self._network, self._images),
                backward_pass.of_chain(self._network, self._images, self._labels),
            )
