"""One training step and one evaluation step, compiled."""

from collections.abc import Callable, Sequence

import keras
import tensorflow as tf

from keras_preact.data import DatasetInfo


def make_normalizer(mean: Sequence[float], std: Sequence[float]) -> Callable:
    """A function from images in 0 to 255, of any dtype, to float32 ones as networks want them.

    Args:
        mean: of each channel, in 0 to 255.
        std: standard deviation of each channel, likewise.
    """
    mean, std = tf.constant(mean, tf.float32), tf.constant(std, tf.float32)
    return lambda images: (tf.cast(images, tf.float32) - mean) / std


def make_train_step(
    model: keras.Model,
    optimizer: keras.optimizers.Optimizer,
    info: DatasetInfo,
    global_batch_size: int,
    strategy: tf.distribute.Strategy,
) -> Callable[[tf.Tensor, tf.Tensor], tuple[tf.Tensor, tf.Tensor]]:
    """A function that takes one step.

    Returns:
        step(images, labels) -> (loss, correct): the mean cross-entropy of the global
        batch and the number of right answers, both from before the update. Weight
        decay is in the update, not in this loss.
    """
    normalize = make_normalizer(info.mean, info.std)

    def replica_step(images, labels):
        with tf.GradientTape() as tape:
            logits = model(normalize(images), training=True)
            losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
            loss = tf.reduce_sum(losses) / global_batch_size
        gradients = tape.gradient(loss, model.trainable_variables)
        # Outside of the tape and of what XLA may compile: gradients are summed here.
        optimizer.apply(gradients, model.trainable_variables)
        return loss, _count_correct(labels, logits, tf.ones_like(losses))

    @tf.function
    def step(images, labels):
        per_replica = strategy.run(replica_step, args=(images, labels))
        return tuple(
            strategy.reduce(tf.distribute.ReduceOp.SUM, value, axis=None) for value in per_replica
        )

    return step


def make_eval_step(
    model: keras.Model, info: DatasetInfo, strategy: tf.distribute.Strategy
) -> Callable[[tf.Tensor, tf.Tensor, tf.Tensor], tuple[tf.Tensor, tf.Tensor]]:
    """A function that evaluates one batch.

    Returns:
        step(images, labels, weights) -> (loss, correct): summed over images of weight 1.
    """
    normalize = make_normalizer(info.mean, info.std)

    def replica_step(images, labels, weights):
        logits = model(normalize(images), training=False)
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
        return tf.reduce_sum(losses * weights), _count_correct(labels, logits, weights)

    @tf.function
    def step(images, labels, weights):
        per_replica = strategy.run(replica_step, args=(images, labels, weights))
        return tuple(
            strategy.reduce(tf.distribute.ReduceOp.SUM, value, axis=None) for value in per_replica
        )

    return step


def _count_correct(labels, logits, weights):
    predicted = tf.argmax(logits, axis=-1, output_type=labels.dtype)
    return tf.reduce_sum(tf.cast(predicted == labels, tf.float32) * weights)
