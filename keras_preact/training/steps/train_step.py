"""One training step: forward, backward, the exchange between replicas, the update."""

import dataclasses
import math
from collections.abc import Callable, Sequence

import tensorflow as tf

from keras_preact.data import DatasetInfo
from keras_preact.training.config import TrainConfig
from keras_preact.training.distribution.compute_plan import ComputePlan
from keras_preact.training.distribution.strategies import all_reduce
from keras_preact.training.steps.loss import correct, cross_entropy, mix, mixing_weight
from keras_preact.training.steps.train_state import TrainState

SMALL_ELEMENTS = 2**14

# What a step reports, in this order, as one float32 vector.
REPORT = (
    "loss",
    "correct",
    "gradient_norm",
    "applied",
    "loss_scale",
    "stop_requests",
    "wait_seconds",
)


def make_gradients(
    state: TrainState, config: TrainConfig, info: DatasetInfo, plan: ComputePlan
) -> Callable:
    """One replica's forward and backward pass, a pure function: what XLA may compile.

    Returns:
        gradients(trainable, non_trainable, images, labels, weight, scale) ->
        (gradients, non_trainable, loss, correct): variables as tensors, images uint8
        (batch, height, width, channels), the weight of mixup and the loss scale as
        float32 scalars; gradients of the scaled loss, loss and right answers summed
        over the batch and divided by the global batch.
    """
    mixes = config.mixup_alpha > 0
    model = state.model

    def gradients(trainable, non_trainable, images, labels, weight, scale):
        inputs = info.normalize(images)
        if mixes:
            inputs = mix(inputs, weight)
        with tf.GradientTape() as tape:
            tape.watch(trainable)
            logits, changed = model.stateless_call(trainable, non_trainable, inputs, training=True)

            def against(labels):
                losses = cross_entropy(logits, labels, config.label_smoothing)
                sums = tf.stack([tf.reduce_sum(losses), tf.reduce_sum(correct(logits, labels))])
                return sums / config.global_batch_size

            sums = against(labels)
            if mixes:
                sums = weight * sums + (1 - weight) * against(labels[::-1])
            scaled = sums[0] * scale
        return tape.gradient(scaled, trainable), changed, sums

    if config.sync_bn and plan.replicas > 1:
        # Replicas cannot exchange statistics from inside another function.
        return gradients
    return tf.function(gradients, jit_compile=plan.xla)


@dataclasses.dataclass(eq=False)
class TrainStep:
    """Takes the steps of a run; `__call__` is compiled.

    Args:
        state: what the steps change.
        config: of the run.
        info: of its data.
        plan: how it computes.
        strategy: over which replicas a batch is spread.
    """

    state: TrainState
    config: TrainConfig
    info: DatasetInfo
    plan: ComputePlan
    strategy: tf.distribute.Strategy

    def __post_init__(self):
        self._gradients = make_gradients(self.state, self.config, self.info, self.plan)
        self._one = tf.function(self._take_one)
        self._several = tf.function(self._take_several)

    def __call__(self, iterator, steps: int = 1, stop: bool = False) -> tf.Tensor:
        """Takes steps.

        Args:
            iterator: over batches (images, labels) of `Dataset.train`, distributed.
            steps: how many, without coming back to Python in between.
            stop: whether this process would like the run to end.

        Returns:
            float32 (steps, len(REPORT)), the same on every replica: the mean
            cross-entropy of the global batch (decay is in the update, not in this loss);
            right answers over images, from before the update; the norm of the gradient;
            whether it was applied; the loss scale; the number of processes that would
            like to stop; seconds spent waiting for input, NaN in deterministic runs.
        """
        stop = tf.constant(float(stop))
        # Always the same graph: another might round otherwise.
        if steps == self.config.steps_per_loop == 1:
            return self._one(iterator, stop)[None]
        return self._several(iterator, stop, tf.constant(steps))

    def _take_several(self, iterator, stop, steps):
        def body(step, reports):
            return step + 1, reports.write(step, self._take_one(iterator, stop))

        reports = tf.TensorArray(tf.float32, steps, element_shape=[len(REPORT)])
        # One after the other, so that waiting for input is told from computing.
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
        """Seconds, once some tensors are there; NaN in deterministic runs."""
        if self.config.deterministic:
            # TensorFlow refuses to ask a clock.
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
        # The learning rate depends on the step, whether it was applied or not.
        state.optimizer.iterations.assign_add(1)
        loss, correct, stops = tf.unstack(sums)
        return tf.stack([loss, correct, norm, applied, scale, stops])

    @property
    def _scales(self):
        return self.plan.precision == "mixed_float16"

    def _accumulate(self, images, labels, scale):
        """Gradients, changed statistics and sums over the parts of this replica's batch."""
        parts = self.config.gradient_accumulation_steps
        trainable = [tf.convert_to_tensor(v) for v in self.state.trainable]
        non_trainable = [tf.convert_to_tensor(v) for v in self.state.non_trainable]
        total = None
        for part, piece in enumerate(
            zip(tf.split(images, parts), tf.split(labels, parts), strict=True)
        ):
            # One part after the other: only then is there memory to save.
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
        """int32 (2,): a function of the run's seed, the step, the replica and the part."""
        replica = tf.distribute.get_replica_context().replica_id_in_sync_group
        step = tf.cast(self.state.optimizer.iterations, tf.int32)
        pieces = self.plan.replicas * self.config.gradient_accumulation_steps
        place = replica * self.config.gradient_accumulation_steps + part
        return tf.stack([self.config.seed % 2**31, step * pieces + place])

    def _seeded(self, non_trainable, seed):
        """The state of every random layer as a function of seed, for the rest as it is.

        What is random then neither has to be saved nor repeats itself on another replica.
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
        """Sums over replicas, in one all-reduce of all gradients and sums in a row."""
        if self.plan.replicas == 1:
            return gradients, sums
        *gradients, sums = all_reduce(tf.distribute.ReduceOp.SUM, [*gradients, sums])
        return gradients, sums

    def _apply(self, gradients, statistics):
        # Each replica writes its own copy. The optimizer's own apply() would sum the
        # gradients once more.
        optimizer, state = self.state.optimizer, self.state
        rate = tf.cast(optimizer.learning_rate, tf.float32)
        for gradient, variable in zip(gradients, state.trainable, strict=True):
            optimizer.update_step(gradient, variable, rate)
        for variable, value in zip(state.model.non_trainable_variables, statistics, strict=True):
            if not is_random_state(variable):
                variable.value.assign(value)
        state.update_averages(optimizer.iterations + 1)


def global_norm(gradients: Sequence[tf.Tensor]) -> tf.Tensor:
    """The Euclidean norm of all gradients together, a float32 scalar."""

    def is_small(gradient):
        return gradient.shape.num_elements() < SMALL_ELEMENTS

    # Hundreds of kernels on a few numbers each would take longer than the copy.
    rows = [tf.reshape(gradient, [-1]) for gradient in gradients if is_small(gradient)]
    large = [gradient for gradient in gradients if not is_small(gradient)]
    return tf.linalg.global_norm([*([tf.concat(rows, axis=0)] if rows else []), *large])


def is_random_state(variable) -> bool:
    """Whether a Keras variable is the state of a `keras.random.SeedGenerator`."""
    return variable.path.endswith("seed_generator_state")
