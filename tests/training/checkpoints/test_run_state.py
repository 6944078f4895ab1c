"""The run state, through a checkpoint and back."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from keras_preact.training.checkpoints.run_state import RunState
from keras_preact.training.steps.train_step import REPORT

BEGIN = RunState()
LATER = RunState(
    step=2**40,
    epoch=3,
    step_in_epoch=17,
    seed=2**31 - 1,
    reshuffles=(0, 400, 400),
    best_score=1 / 3,
    best_step=2**39,
    evaluated=False,
    csv_bytes=12_345,
    step_metrics=np.random.default_rng(0).uniform(size=(5, len(REPORT))),
    replica_statistics=np.random.default_rng(1).uniform(size=(2, 6)).astype(np.float32),
)


def assert_same(first, second):
    for field in dataclasses.fields(RunState):
        a, b = getattr(first, field.name), getattr(second, field.name)
        assert type(a) is type(b), field.name
        np.testing.assert_array_equal(a, b, err_msg=field.name, strict=True)


def test_no_field_is_left_at_its_default_here():
    for field in dataclasses.fields(RunState):
        first, second = getattr(BEGIN, field.name), getattr(LATER, field.name)
        assert not np.array_equal(first, second), field.name


@pytest.mark.parametrize("saved", [BEGIN, LATER], ids=["empty arrays", "full arrays"])
@pytest.mark.parametrize("before", [BEGIN, LATER], ids=["over empty ones", "over full ones"])
def test_every_field_comes_back_from_a_checkpoint(tmp_path, saved, before):
    path = str(tmp_path / "position")
    tf.train.Checkpoint(position=saved.to_variables()).write(path)
    variables = before.to_variables()
    tf.train.Checkpoint(position=variables).read(path).assert_consumed()
    assert_same(RunState.from_variables(variables), saved)
