"""One training step: forward pass, backward pass, all-reduce, update."""

import dataclasses
import math
from collections.abc import Sequence

import tensorflow as tf

from keras_preact.data import DatasetInfo
from keras_preact.training.config import TrainConfig
from keras_preact.training.distribution.compute_plan import ComputePlan
from keras_preact.training.distribution.strategies import all_reduce
from keras_preact.training.steps.loss import correct, cross_entropy, mix, mixing_weight
from keras_preact.training.steps.train_state import TrainState

SMALL_ELEMENTS = 2**14

# The metrics of a step: the elements of a float32 vector.
REPORT = (
    "loss",
    "correct",
    "gradient_norm",
    "applied",
    "loss_scale",
    "stop_requests",
    "wait_seconds",
)


@dataclasses.dataclass(eq=False)
class TrainStep:
    """Takes training steps.

    Args:
        state: variables that the steps change.
        config: configuration of the run.
        info: gives the normalization of images.
        plan: compute plan.
        strategy: gives the replicas.
    """

    state: TrainState
    config: TrainConfig
    info: DatasetInfo
    plan: ComputePlan
    strategy: tf.distribute.Strategy

    def __post_init__(self):
        self._gradients = self._compute_gradients
        # Synchronized BN cannot exchange statistics inside another function.
        if not (self.config.sync_bn and self.plan.replicas > 1):
            self._gradients = tf.function(self._gradients, jit_compile=self.plan.xla)
        self._one = tf.function(self._take_one)
        self._several = tf.function(self._take_several)

    def __call__(self, iterator, steps: int = 1, stop: bool = False) -> tf.Tensor:
        """Takes steps.

        Args:
            iterator: distributed, over batches (images, labels) of `Dataset.train`.
            steps: number of steps, taken without returning to Python in between.
            stop: whether this process asks the run to stop.

        Returns:
            float32 (steps, len(REPORT)), the same on every replica: the mean cross-entropy
            of the global batch before the update, without weight decay; its accuracy; the
            norm of the gradient; whether the update was applied; the loss scale; the number
            of processes that ask to stop; seconds spent waiting for input, NaN in
            deterministic runs.
        """
        stop = tf.constant(float(stop))
        # A run always uses the same graph: another one may round otherwise.
        if steps == self.config.steps_per_loop == 1:
            return self._one(iterator, stop)[None]
        return self._several(iterator, stop, tf.constant(steps))

    def _take_several(self, iterator, stop, steps):
        def body(step, reports):
            return step + 1, reports.write(step, self._take_one(iterator, stop))

        reports = tf.TensorArray(tf.float32, steps, element_shape=[len(REPORT)])
        # In turn, so that waiting for input is timed apart from computing.
        _, reports = tf.while_loop(
            lambda step, _: step < steps, body, (0, reports), parallel_iterations=1
        )
        return reports.stack()

    def _take_one(self, iterator, stop):
        before = self._now([])
        with tf.control_dependencies([before]):
            batch = next(iterator)
        after = self._now(tf.nest.flatten(batch, expand_composites=True))
        wait_seconds = tf.cast(after - before, tf.float32)
        reports = self.strategy.run(self._replica_step, args=(*batch, stop))
        report = self.strategy.experimental_local_results(reports)[0]
        return tf.concat([report, [wait_seconds]], axis=0)

    def _now(self, after):
        """Reads the clock in seconds once some tensors are computed; NaN in deterministic runs."""
        if self.config.deterministic:
            # TensorFlow refuses to read a clock.
            return tf.constant(math.nan, tf.float64)
        with tf.control_dependencies(after):
            return tf.timestamp()

    def _replica_step(self, images, labels, stop):
        state = self.state
        scale = tf.convert_to_tensor(state.loss_scale.scale) if self._scales else tf.constant(1.0)
        gradients, statistics, sums = self._accumulate(images, labels, scale)
        gradients, sums = self._exchange(gradients, tf.concat([sums, [stop]], axis=0))
        gradients = [gradient / scale for gradient in gradients] if self._scales else gradients
        norm = global_norm(gradients)
        finite = tf.math.is_finite(norm)

        def update():
            self._apply(gradients, statistics)
            return tf.constant(1.0)

        applied = tf.cond(finite, update, lambda: tf.constant(0.0)) if self._scales else update()
        if self._scales:
            state.loss_scale.update(finite)
        # Skipped steps count for the learning rate, too.
        state.optimizer.iterations.assign_add(1)
        loss, correct, stops = tf.unstack(sums)
        return tf.stack([loss, correct, norm, applied, scale, stops])

    @property
    def _scales(self):
        return self.plan.precision == "mixed_float16"

    def _compute_gradients(self, trainable, non_trainable, images, labels, weight, scale):
        """Computes one replica's forward and backward pass, a pure function for XLA to compile.

        Args:
            trainable, non_trainable: variables as tensors.
            images: uint8 (batch, height, width, channels).
            labels: int32 (batch,).
            weight: of mixup, a float32 scalar.
            scale: of the loss, a float32 scalar.

        Returns:
            gradients of the scaled loss; values of the other variables after the pass; loss and
            number of correct answers. Gradients, loss and number are sums over the batch,
            divided by the global batch size.
        """
        config = self.config
        inputs = self.info.normalize(images)
        if config.mixup_alpha:
            inputs = mix(inputs, weight)
        with tf.GradientTape() as tape:
            tape.watch(trainable)
            logits, changed = self.state.model.stateless_call(
                trainable, non_trainable, inputs, training=True
            )

            def against(labels):
                losses = cross_entropy(logits, labels, config.label_smoothing)
                sums = tf.stack([tf.reduce_sum(losses), tf.reduce_sum(correct(logits, labels))])
                return sums / config.global_batch_size

            sums = against(labels)
            if config.mixup_alpha:
                sums = weight * sums + (1 - weight) * against(labels[::-1])
            scaled = sums[0] * scale
        return tape.gradient(scaled, trainable), changed, sums

    def _accumulate(self, images, labels, scale):
        """Sums gradients, loss and correct answers over the parts of this replica's batch.

        Returns:
            gradients; values of the other variables after the last part; the sums.
        """
        parts = self.config.gradient_accumulation_steps
        trainable = [tf.convert_to_tensor(v) for v in self.state.trainable]
        non_trainable = [tf.convert_to_tensor(v) for v in self.state.non_trainable]
        total = None
        for part, piece in enumerate(
            zip(tf.split(images, parts), tf.split(labels, parts), strict=True)
        ):
            # In turn: parts computed at once would save no memory.
            after = [] if total is None else tf.nest.flatten(total)
            with tf.control_dependencies(after):
                seed = self._seed(part)
                alpha = self.config.mixup_alpha
                weight = mixing_weight(alpha, seed) if alpha else tf.constant(1.0)
                gradients, non_trainable, sums = self._gradients(
                    trainable, self._seeded(non_trainable, seed), *piece, weight, scale
                )
                one = (gradients, sums)
                total = one if total is None else tf.nest.map_structure(tf.add, total, one)
        return total[0], non_trainable, total[1]

    def _seed(self, part):
        """Returns an int32 (2,) seed from the run's seed, step, replica and part."""
        replica = tf.distribute.get_replica_context().replica_id_in_sync_group
        step = tf.cast(self.state.optimizer.iterations, tf.int32)
        pieces = self.plan.replicas * self.config.gradient_accumulation_steps
        place = replica * self.config.gradient_accumulation_steps + part
        return tf.stack([self.config.seed % 2**31, step * pieces + place])

    def _seeded(self, non_trainable, seed):
        """Replaces the state of every random layer by a function of the seed.

        Random states then need no saving, and differ between replicas.
        """
        values = []
        for index, (variable, value) in enumerate(
            zip(self.state.model.non_trainable_variables, non_trainable, strict=True)
        ):
            if is_random_state(variable):
                numbers = tf.random.experimental.stateless_fold_in(seed, index)
                value = tf.bitcast(numbers, tf.uint32)
            values.append(value)
        return values

    def _exchange(self, gradients, sums):
        """Sums gradients and sums over replicas, in one all-reduce."""
        if self.plan.replicas == 1:
            return gradients, sums
        *gradients, sums = all_reduce(tf.distribute.ReduceOp.SUM, [*gradients, sums])
        return gradients, sums

    def _apply(self, gradients, statistics):
        # Each replica updates its own copy. The optimizer's apply() would sum the gradients
        # over replicas once more.
        optimizer, state = self.state.optimizer, self.state
        rate = tf.cast(optimizer.learning_rate, tf.float32)
        for gradient, variable in zip(gradients, state.trainable, strict=True):
            optimizer.update_step(gradient, variable, rate)
        for variable, value in zip(state.model.non_trainable_variables, statistics, strict=True):
            if not is_random_state(variable):
                variable.value.assign(value)
        state.update_averages(optimizer.iterations + 1)


def global_norm(gradients: Sequence[tf.Tensor]) -> tf.Tensor:
    """Returns the Euclidean norm of all gradients together, a float32 scalar."""

    def is_small(gradient):
        return gradient.shape.num_elements() < SMALL_ELEMENTS

    # Copying small gradients into one row is faster than hundreds of kernels on a few numbers.
    rows = [tf.reshape(gradient, [-1]) for gradient in gradients if is_small(gradient)]
    large = [gradient for gradient in gradients if not is_small(gradient)]
    return tf.linalg.global_norm([*([tf.concat(rows, axis=0)] if rows else []), *large])


def is_random_state(variable) -> bool:
    """Whether a Keras variable is the state of a `keras.random.SeedGenerator`."""
    return variable.path.endswith("seed_generator_state")
