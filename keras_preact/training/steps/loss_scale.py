"""Dynamic loss scaling, which keeps small float16 gradients from vanishing."""

import tensorflow as tf

INITIAL_SCALE = 2.0**15
GROWTH_STEPS = 2000
LARGEST_SCALE = 2.0**24
# Gradients that overflow at scale 1 overflow for another reason.
SMALLEST_SCALE = 1.0


class LossScale:
    """A factor on the loss: halved after an overflow, doubled after 2,000 steps without one.

    Source: Micikevicius et al., "Mixed Precision Training" (2018), section 3.2, in the
    dynamic form of Keras' `LossScaleOptimizer`. Keras checks the gradients of the first
    replica only; here the gradients summed over replicas decide, which are not finite if
    those of any replica are not.
    """

    def __init__(self):
        self.scale = tf.Variable(INITIAL_SCALE, trainable=False, name="scale")
        self.good_steps = tf.Variable(0, trainable=False, dtype=tf.int32, name="good_steps")

    @property
    def variables(self) -> dict[str, tf.Variable]:
        return {"scale": self.scale, "good_steps": self.good_steps}

    def update(self, finite: tf.Tensor) -> None:
        """Updates the scale after a step; finite, a boolean scalar, is the same on all replicas."""
        good_steps = tf.where(finite, self.good_steps + 1, 0)
        grows = good_steps >= GROWTH_STEPS
        grown = tf.where(grows, tf.minimum(self.scale * 2, LARGEST_SCALE), self.scale)
        self.scale.assign(tf.where(finite, grown, tf.maximum(self.scale / 2, SMALLEST_SCALE)))
        self.good_steps.assign(tf.where(grows, 0, good_steps))
