"""Exports of a run's checkpoints, from the folder of a run that was never trained."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_preact import exporting
from keras_preact.data import datasets
from keras_preact.exporting import ExportConfig
from keras_preact.training import TrainConfig, decision
from keras_preact.training.checkpoint import Checkpoints
from keras_preact.training.lock import locked
from keras_preact.training.optimizer import make_optimizer, make_schedule
from keras_preact.training.position import Position
from keras_preact.training.run import build_model
from keras_preact.training.run_folder import RunFolder
from keras_preact.training.state import make_state

CONFIG = TrainConfig(dataset="digits", depth=8, train_steps=9, ema_decay=0.9)
IMAGE = np.random.default_rng(0).integers(0, 256, (1, 8, 8, 1), np.uint8)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A run's folder, and the probabilities of IMAGE by the averages saved after each step."""
    folder, info = RunFolder(tmp_path_factory.mktemp("runs") / "run"), datasets.load("digits").info
    folder.begin(CONFIG, info, decision.decide(CONFIG, decision.Machine()))
    model = build_model(CONFIG, info)
    schedule = make_schedule(CONFIG, info.train_count)
    state = make_state(CONFIG, model, make_optimizer(CONFIG, schedule, model))
    checkpoints = Checkpoints(folder.checkpoints, state, keep=3)
    normalized = (IMAGE - np.float32(info.mean)) / np.float32(info.std)
    expected, averaged = {}, build_model(CONFIG, info)
    for step in (6, 7, 8):
        keras.utils.set_random_seed(step)
        averaged.set_weights(build_model(CONFIG, info).get_weights())
        for variable in averaged.variables:
            state.averages[variable.path].assign(variable.value)
        checkpoints.save(Position(step=step), best=step == 6)
        expected[step] = tf.nn.softmax(averaged(normalized)).numpy()
    checkpoints.wait()
    return folder, expected


def exported(folder, **options):
    version = exporting.run(ExportConfig(run_dir=str(folder), **options))
    predict = tf.saved_model.load(str(version)).signatures["serving_default"]
    return predict(images=tf.constant(IMAGE))["probabilities"].numpy()


def test_the_best_or_the_newest_that_is_not_damaged_is_exported(saved, tmp_path, capsys):
    folder, expected = saved
    best = exported(folder, checkpoint="best", output_dir=str(tmp_path))
    np.testing.assert_allclose(best, expected[6], atol=1e-5)
    [data] = (folder.checkpoints / "step-8").glob("*.data-*")
    data.write_bytes(data.read_bytes()[:-1])
    capsys.readouterr()
    np.testing.assert_allclose(exported(folder), expected[7], atol=1e-5)
    told, line, *_ = capsys.readouterr().out.splitlines()
    assert told.startswith(f"{folder.checkpoints / 'step-8'} is damaged: ")
    assert line.startswith("Exported step 7. ")
    assert (folder.path / "export" / "saved_model" / "1").is_dir()
    # Who exports a run does not tidy it up: it may be in use.
    assert (folder.checkpoints / "step-8").is_dir()


def test_two_exports_to_one_folder_at_once_are_refused(saved, tmp_path):
    folder, _ = saved
    with locked(tmp_path), pytest.raises(ValueError, match=f"{tmp_path} is in use by process"):
        exported(folder, output_dir=str(tmp_path))


def test_without_a_run_or_a_checkpoint_nothing_is_made(saved, tmp_path):
    with pytest.raises(ValueError, match=r"no .*config\.json"):
        exported(tmp_path)
    folder = RunFolder(tmp_path)
    folder.begin(*saved[0].read(), decision.decide(CONFIG, decision.Machine()))
    with pytest.raises(ValueError, match="There is no newest checkpoint"):
        exported(folder)
    assert not (tmp_path / "export").exists()
