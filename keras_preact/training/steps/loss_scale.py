"""Dynamic loss scaling, which keeps small float16 gradients from vanishing."""

import tensorflow as tf

INITIAL_SCALE = 2.0**15
GROWTH_STEPS = 2000
LARGEST_SCALE = 2.0**24
# Gradients that overflow at scale 1 overflow for another reason.
SMALLEST_SCALE = 1.0


def update(
    scale: tf.Tensor, good_steps: tf.Tensor, finite: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns loss scale and number of good steps after a step.

    The loss scale is halved after an overflow and doubled after 2,000 steps without one.
    Source: Micikevicius et al., "Mixed Precision Training" (2018), section 3.2, in the
    dynamic form of Keras' `LossScaleOptimizer`. Keras checks the gradients of the first
    replica only; here the gradients summed over replicas decide, which are not finite if
    those of any replica are not.

    Args:
        scale: before the step, a float32 scalar.
        good_steps: number of steps since the last change, a float32 scalar: TensorFlow keeps
            int32 in the host's memory, and would wait for it.
        finite: whether the gradient is finite, a boolean scalar, the same on all replicas.
    """
    good_steps = tf.where(finite, good_steps + 1, 0.0)
    grows = good_steps >= GROWTH_STEPS
    grown = tf.where(grows, tf.minimum(scale * 2, LARGEST_SCALE), scale)
    scale = tf.where(finite, grown, tf.maximum(scale / 2, SMALLEST_SCALE))
    return scale, tf.where(grows, 0.0, good_steps)
