"""Runs whose loss is no longer finite: they stop, or continue from a checkpoint."""

import numpy as np
import pytest
import tensorflow as tf
from same_runs import saved
from small_runs import harmed_at_step, small, steps_shown, wait_for, without_a_loss
from small_states import names

from keras_preact.data import datasets
from keras_preact.training import DivergenceError, run
from keras_preact.training.distribution.device_images import Draws
from keras_preact.training.reporting import metrics_file

pytestmark = pytest.mark.usefixtures("without_pictures")


def lose_a_statistic(state, rows):
    """Sets a BN statistic to NaN, which training does not notice."""
    with state.in_network() as network:
        variable = next(v for v in network.variables if "moving_mean" in v.path)
        variable.assign(tf.fill(variable.shape, np.nan))
    return rows


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (lambda state, rows: without_a_loss(rows), "The loss was nan at step 3"),
        (lose_a_statistic, "A variable was no longer finite after step 4"),
    ],
)
def test_a_run_stops_after_the_launch_and_names_the_last_good_checkpoint(
    tmp_path, monkeypatch, harm, words
):
    taken = harmed_at_step(monkeypatch, 3, harm)
    with pytest.raises(DivergenceError) as error:
        run(small(tmp_path, checkpoint_steps=2, log_steps=50, steps_per_loop=1))
    good = tmp_path / "checkpoints" / "step-2"
    assert str(error.value) == (
        f"{words}. Last good checkpoint: {good}. Training has stopped. A lower learning rate or a "
        "longer warm-up may help."
    )
    # A loss is seen at once, a variable when the run is saved.
    assert taken == [1, 2, 3, 4][: 3 if "loss" in words else 4]
    assert [name for name in names(tmp_path / "checkpoints") if "step" in name] == ["step-2"]
    for name, value in saved(tmp_path).items():
        assert np.isfinite(value).all(), name


def test_a_run_that_diverges_at_once_says_that_nothing_was_saved(tmp_path):
    with pytest.raises(DivergenceError, match=r"at step 2\. No checkpoint had been saved yet"):
        run(small(tmp_path, learning_rate=1e30, warmup_steps=0))


def test_a_run_that_keeps_diverging_is_given_up(tmp_path, capsys):
    hopeless = {"learning_rate": 1e30, "warmup_steps": 0, "max_rollbacks": 2, "log_steps": 1}
    with pytest.raises(DivergenceError) as error:
        run(small(tmp_path, on_nan="rollback", **hopeless))
    assert "Training has stopped: it has been rolled back 2 times, as often as max_rollbacks " in (
        str(error.value)
    )
    lines = [line for line in capsys.readouterr().out.splitlines() if "Rolled back" in line]
    for number, line in enumerate(lines, 1):
        assert line.endswith(
            f"Last good checkpoint: {tmp_path / 'checkpoints/step-0'}. Rolled back to step 0, to "
            f"go on with another data order: {number} of at most 2 times."
        )
    assert len(lines) == 2
    # The first loss is from before the first update.
    assert steps_shown(tmp_path, "train", "loss") == [1]
    assert [name for name in names(tmp_path / "checkpoints") if "step" in name] == ["step-0"]


def drawn_by_run(monkeypatch):
    """Collects the training images of each launch: a list for each stream that a run takes."""
    make, take, streams = Draws.__init__, Draws.take, []

    def noted_make(self, order, step):
        make(self, order, step)
        self.stream = []
        streams.append(self.stream)

    def noted_take(self, steps):
        indices, draws = take(self, steps)
        self.stream.extend(indices[:steps].tolist())
        return indices, draws

    monkeypatch.setattr(Draws, "__init__", noted_make)
    monkeypatch.setattr(Draws, "take", noted_take)
    return streams


def drawn_from(step, reshuffles):
    order = datasets.load("digits").train_order(256, 3, reshuffles)
    return [order.batch(step + number)[0].tolist() for number in range(4)]


def test_a_run_that_diverged_once_continues_in_another_order_and_shows_each_step_once(
    tmp_path, monkeypatch, capsys
):
    checkpoints = tmp_path / "checkpoints"

    def harm(state, rows):
        # The newest checkpoint, of an evaluation, is damaged as well.
        wait_for(checkpoints / "step-6")
        [data] = (checkpoints / "step-6").glob("*.data-*")
        data.write_bytes(data.read_bytes()[:-1])
        return without_a_loss(rows)

    expected = [drawn_from(0, ()), drawn_from(4, (4,))]
    assert drawn_from(4, ()) != expected[1]
    streams = drawn_by_run(monkeypatch)
    taken = harmed_at_step(monkeypatch, 7, harm)
    result = run(
        small(
            tmp_path,
            seed=3,
            global_batch_size=256,
            train_steps=8,
            checkpoint_steps=4,
            steps_per_loop=1,
            on_nan="rollback",
        )
    )
    assert len(taken) == 7 + 4
    assert [stream[:4] for stream in streams] == expected
    held = saved(tmp_path)
    [reshuffles] = [value for name, value in held.items() if name.startswith("position/restarts")]
    assert reshuffles.tolist() == [4]
    assert all(np.isfinite(value).all() for value in held.values())
    assert names(checkpoints / "damaged") == ["step-6"]
    # An epoch is 5.6 steps.
    rows = metrics_file.read(tmp_path / "metrics.csv")
    assert [row.step for row in rows] == [6, 8]
    assert rows[-1].eval_loss == pytest.approx(result.loss, rel=1e-5)
    assert steps_shown(tmp_path, "train", "loss") == [2, 4, 6, 8]
    assert steps_shown(tmp_path, "eval", "loss") == [6, 8]
    out = capsys.readouterr().out
    assert "The loss was nan at step 7." in out
    assert "Rolled back to step 4, to go on with another data order: 1 of at most 3 times." in out
