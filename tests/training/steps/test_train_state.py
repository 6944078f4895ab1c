"""Averaged weights, and the variables of a checkpoint."""

import numpy as np
from small_states import save
from small_steps import CONFIG, make

from keras_preact.training.checkpoints import checkpoint


def test_averages_follow_the_recursion_from_the_initial_weights():
    small = make(1, ema_decay=0.6)
    path, variable = next(
        (v.path, v.value) for v in small.state.model.trainable_variables if "conv1" in v.path
    )
    expected = variable.numpy().astype(np.float64)
    for step in range(1, 5):
        small.take(1)
        decay = min(0.6, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * variable.numpy()
        np.testing.assert_allclose(small.state.averages[path], expected, rtol=1e-5, atol=1e-7)
    assert not np.allclose(small.state.averages[path], variable, atol=1e-4)


def test_averages_are_evaluated_saved_and_loaded(tmp_path):
    small = make(1, ema_decay=0.9)
    small.take(3)
    saved = str(save(tmp_path, small.state, 3))
    fresh = make(1).state.model
    checkpoint.load_model(saved, fresh, averages=True)
    trainable, _ = small.state.evaluated()
    for loaded, average in zip(fresh.trainable_variables, trainable, strict=True):
        np.testing.assert_array_equal(loaded.numpy(), average.numpy(), err_msg=loaded.path)
    checkpoint.load_model(saved, fresh)
    for loaded, own in zip(fresh.trainable_variables, small.state.trainable, strict=True):
        np.testing.assert_array_equal(loaded.numpy(), own.numpy(), err_msg=loaded.path)


def test_without_a_decay_nothing_is_averaged():
    state = make(1).state
    assert state.averages == {} and "averages" not in state.to_save()
    assert state.evaluated() == (state.trainable, state.non_trainable)


def test_names_of_saved_variables_depend_on_neither_precision_nor_replicas():
    names = [
        {group: sorted(values) for group, values in make(n, precision=p).state.to_save().items()}
        for n, p in ((1, "float32"), (1, "mixed_bfloat16"), (2, "mixed_float16"))
    ]
    assert names[0] == names[1] == names[2]
    assert set(names[0]) == {"model", "optimizer", "loss_scale"}
    assert "stage1_unit1/conv1/kernel" in names[0]["model"]
    assert CONFIG.precision == "auto"
