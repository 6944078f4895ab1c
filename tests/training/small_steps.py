"""Small training steps on one or two logical CPU devices, for tests."""

import dataclasses

import keras
import numpy as np
import tensorflow as tf

from keras_preact.data import datasets
from keras_preact.training import TrainConfig
from keras_preact.training.distribution import compute_plan, device_images, strategies
from keras_preact.training.distribution.device_images import DeviceImages
from keras_preact.training.distribution.distributed_input import feed_training
from keras_preact.training.run import build_model
from keras_preact.training.steps import optimizer, schedules
from keras_preact.training.steps.freezing import make_freezing
from keras_preact.training.steps.objective import make_objective
from keras_preact.training.steps.train_state import TrainState, make_state
from keras_preact.training.steps.train_step import REPORT, TrainStep

CONFIG = TrainConfig(
    dataset="digits",
    depth=8,
    global_batch_size=32,
    train_steps=4,
    schedule_steps=4,
    warmup_steps=0,
    learning_rate=0.05,
)


@dataclasses.dataclass
class Small:
    """A state, its steps and its batches, on some replicas."""

    config: TrainConfig
    strategy: tf.distribute.Strategy
    state: TrainState
    step: TrainStep
    batches: object
    done: int = 0

    def take(self, steps=1, per_launch=1):
        """Takes further steps; returns their reports as a dictionary of arrays."""
        rows = []
        for begin in range(0, steps, per_launch):
            count = min(per_launch, steps - begin)
            rows.append(self.step(self.batches, self.done, count))
            self.done += count
        return dict(zip(REPORT, np.concatenate(rows).T, strict=True))


def make(
    replicas=1,
    step_class=TrainStep,
    plan_class=compute_plan.ComputePlan,
    on_device=True,
    data=None,
    class_weights=None,
    **changes,
) -> Small:
    """Makes a state, steps and batches for CONFIG with changes: the same at each call.

    data: by default the digits.
    """
    keras.utils.set_random_seed(1)
    config = CONFIG.updated(devices=str(replicas), **changes)
    plan = compute_plan.make_compute_plan(config, compute_plan.Machine())
    plan = plan_class(
        **{field.name: getattr(plan, field.name) for field in dataclasses.fields(plan)}
    )
    keras.config.set_dtype_policy(plan.precision)
    strategy = strategies.make_strategy(plan)
    data = data or datasets.load("digits")
    with strategy.scope():
        model = build_model(config, data.info, config.sync_bn)
        schedule = schedules.make_schedule(config, data.info.train_count)
        sgd = optimizer.make_optimizer(config, schedule, model)
        freezing = make_freezing(config, data.info.train_count, model)
        state = make_state(config, model, sgd, plan, freezing)
    images = DeviceImages(data, None, strategy) if on_device else None
    objective = make_objective(config, data.info, class_weights)
    step = step_class(state, config, data.info, plan, strategy, images, objective)
    order = data.train_order(config.global_batch_size, config.seed)
    if step.takes_draws:
        batches = device_images.Draws(order, 0)
    elif images:
        batches = device_images.feed_draws(strategy, order, 0)
    else:
        batches = feed_training(strategy, data, config.global_batch_size, seed=config.seed)
    return Small(config, strategy, state, step, batches)


def copies(variable) -> list[np.ndarray]:
    """Returns the values of a variable on all replicas."""
    return [copy.numpy() for copy in getattr(variable, "values", [variable])]


def weights(small: Small) -> dict[str, np.ndarray]:
    """Returns the trainable variables by path; checks that all replicas hold the same."""
    return {path: first for path, (first, *_) in everywhere(small, "trainable").items()}


def everywhere(small: Small, kind: str) -> dict[str, list[np.ndarray]]:
    """Returns the values of variables on all replicas, by path.

    Args:
        small: its network is brought up to date.
        kind: "trainable", of which all replicas must hold the same, or "non_trainable".
    """
    with small.state.in_network() as network:
        values = {v.path: copies(v.value) for v in getattr(network, f"{kind}_variables")}
    for path, (first, *others) in values.items() if kind == "trainable" else ():
        for other in others:
            np.testing.assert_array_equal(first, other, err_msg=path)
    return values


def assert_same(first: dict, second: dict, **tolerance) -> None:
    assert first.keys() == second.keys() and first
    for path, value in first.items():
        np.testing.assert_allclose(second[path], value, err_msg=path, **tolerance)
