"""Evaluates a network, counting every image exactly once."""

import time
from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf

from keras_preact.data import Dataset
from keras_preact.data.dataset import eval_pieces
from keras_preact.models.looped_network import LoopedNetwork, stacked
from keras_preact.training.distribution.compute_plan import ComputePlan
from keras_preact.training.distribution.device_images import (
    MOST_STEPS,
    DeviceImages,
    feed_eval_pieces,
)
from keras_preact.training.distribution.distributed_input import feed_evaluation
from keras_preact.training.steps import tallies
from keras_preact.training.steps.pace import Pace
from keras_preact.training.steps.scores import Evaluation, MultiLabelEvaluation


class Evaluator:
    """Evaluates a network on all evaluation images, many batches in one launch.

    The loss is the cross-entropy, with several labels the binary cross-entropy, without weights
    and smoothing: it compares runs, whatever they train with. Sums stay on the devices until a
    launch is over. Launches are made as training steps are; see `TrainStep`.

    Args:
        model: a built model.
        data: evaluation images; its info gives normalization and kind of labels.
        plan: compute plan.
        strategy: gives the replicas.
        logits: returns the logits of normalized images; by default those of the model with its
            own values. Called in a replica context.
        images: the data's, on the devices; None to read them from the host.
    """

    def __init__(
        self,
        model: keras.Model,
        data: Dataset,
        plan: ComputePlan,
        strategy: tf.distribute.Strategy,
        logits: Callable[[tf.Tensor], tf.Tensor] | None = None,
        images: DeviceImages | None = None,
    ):
        self._data, self._plan, self._strategy = data, plan, strategy
        self._logits = logits or _own_logits(model)
        self._images, self._tally = images, tallies.make(data.info)
        self._pace, self._is_compiled = Pace(most=MOST_STEPS), False
        self._takes_pieces = images is not None and plan.replicas == 1
        if self._takes_pieces:
            self._function = tf.function(self._launch_from_pieces, jit_compile=plan.xla_loops)
        else:
            self._function = tf.function(self._launch)
        if not (self._takes_pieces and plan.xla_loops):
            self._sums = tf.function(self._sums, jit_compile=plan.compiles_steps)

    def __call__(
        self, batch_size: int, stop: Callable[[], bool] = lambda: False
    ) -> Evaluation | MultiLabelEvaluation | None:
        """Evaluates.

        Args:
            batch_size: images in a batch, on all devices together.
            stop: called before each launch; returns whether to stop early.

        Returns:
            The evaluation; None if a process stopped it early.
        """
        batches = -(-self._data.info.eval_count // batch_size)
        feed, done, launches, own_seconds = self._feed(batch_size), 0, [], 0.0
        most = self._tally.most_steps(batch_size)
        while done < batches:
            begin, steps = time.perf_counter(), min(self._pace.next, most, batches - done)
            with tf.device("CPU"):
                asked = tf.constant([float(stop()), own_seconds])
                arguments = (*feed(done, steps), tf.constant(steps), asked)
            *parts, [stops, seconds] = (part.numpy() for part in self._take(arguments))
            if stops > 0:
                return None
            # Each process learns the mean of all, so that all take as many batches.
            self._pace.update(float(seconds) / self._plan.replicas)
            if self._is_compiled:
                own_seconds = (time.perf_counter() - begin) / steps
            self._is_compiled = True
            launches.append((parts, steps))
            done += steps
        return self._tally.result(launches)

    def _feed(self, batch_size):
        """Returns a function of a batch's number and of how many to take."""
        count = self._data.info.eval_count
        if self._takes_pieces:
            return _Pieces(count, batch_size).take
        if self._images:
            iterator = feed_eval_pieces(self._strategy, count, batch_size)
        else:
            iterator, _ = feed_evaluation(self._strategy, self._data, batch_size)
        return lambda done, steps: (iterator,)

    def _take(self, arguments):
        if self._takes_pieces:
            return self._strategy.run(self._function, args=arguments)
        return self._function(*arguments)

    def _launch_from_pieces(self, indices, weights, steps, asked):
        def sums_of(step):
            sums = self._sums((indices[step], weights[step]))
            return self._tally.of_replica(sums, tf.constant(0), 1)

        size = weights.shape[1]
        return self._loop(steps, asked, sums_of, [self._tally.most_steps(size), 1, size])

    def _launch(self, iterator, steps, asked):
        def sums_of_next(step):
            sums = self._strategy.run(self._replica_sums, args=(next(iterator),))
            return [self._total(value) for value in sums]

        # reduce() sums only per-replica tensors, and what is asked is the same tensor on all.
        asked = self._total(self._strategy.run(tf.identity, args=(asked,)))
        return self._loop(steps, asked, sums_of_next, [steps, self._plan.replicas, None])

    def _loop(self, steps, asked, sums_of, shape):
        def body(step, state):
            return step + 1, self._tally.add(state, step, sums_of(step))

        begin = tf.constant(0), self._tally.begin(shape)
        _, state = tf.while_loop(lambda step, _: step < steps, body, begin, parallel_iterations=1)
        return *self._tally.end(state), asked

    def _replica_sums(self, batch):
        replica = tf.distribute.get_replica_context().replica_id_in_sync_group
        return self._tally.of_replica(self._sums(batch), replica, self._plan.replicas)

    def _sums(self, batch):
        """Sums up a replica's images of weight 1."""
        images, labels, weights = self._images.eval_batch(*batch) if self._images else batch
        inputs = self._data.info.normalize(images)
        return self._tally.of_batch(self._logits(inputs), labels, weights)

    def _total(self, value):
        return self._strategy.reduce(tf.distribute.ReduceOp.SUM, value, axis=None)


def _own_logits(model):
    function = LoopedNetwork(model)

    def logits(images):
        values = stacked({v.path: v.value for v in model.variables}, function.stacks)
        return function(values, images, training=False)[0]

    return logits


class _Pieces:
    """Indices and weights of evaluation batches, in arrays of one shape."""

    def __init__(self, count, batch_size):
        self._pieces = eval_pieces(count, batch_size)

    def take(self, done, steps):
        """Returns int32 and float32 (MOST_STEPS, batch), of which the first steps count."""
        arrays = []
        for values, dtype in zip(self._pieces, (np.int32, np.float32), strict=True):
            array = np.zeros((MOST_STEPS, values.shape[1]), dtype)
            array[:steps] = values[done : done + steps]
            arrays.append(tf.constant(array))
        return arrays
