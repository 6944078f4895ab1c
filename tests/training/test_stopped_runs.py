"""Runs stopped by a signal, the time limit, a full disk or a lost image."""

import os
import re
import resource
import shutil
import signal
import time

import numpy as np
import pytest
from PIL import Image
from same_runs import saved
from small_runs import AtStep, small, steps_shown, wait_for
from small_states import names

from keras_preact.support import files
from keras_preact.training import Interrupted, SaveError, run
from keras_preact.training.reporting import metrics_file, propagation_file

pytestmark = pytest.mark.usefixtures("without_pictures")


def test_a_run_stops_when_asked_or_at_its_time_limit_and_is_resumed(tmp_path, capsys):
    checkpoints = tmp_path / "checkpoints"
    with pytest.raises(Interrupted) as over:
        run(small(tmp_path, max_runtime_minutes=1e-4))
    saved_as = f"after step 1, saved as {checkpoints / 'step-1'}"
    assert str(over.value) == f"the 0.0001 minutes allowed are over, {saved_as}"
    assert over.value.exit_code == 75
    assert names(checkpoints) == ["checkpoint", "step-1"]

    def ask():
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.2)  # until another thread has heard it

    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with pytest.raises(Interrupted) as asked:
        run(small(tmp_path, resume=True), actions=[AtStep(2, ask)])
    assert str(asked.value) == f"SIGTERM, after step 3, saved as {checkpoints / 'step-3'}"
    assert asked.value.exit_code == 143
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == handlers

    run(small(tmp_path, resume=True))
    assert [row.step for row in metrics_file.read(tmp_path / "metrics.csv")] == [6]
    assert steps_shown(tmp_path, "train", "loss") == [2, 4, 6]
    out = capsys.readouterr().out
    assert "Could not save" not in out
    assert re.findall("Continuing after step .*", out) == [
        f"Continuing after step {step}" for step in (1, 3)
    ]


@pytest.mark.slow
def test_a_run_that_is_asked_to_stop_saves_before_it_logs_records_or_evaluates(tmp_path, capsys):
    def ask():
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.2)  # until another thread has heard it

    def fail():
        raise RuntimeError("of whatever kind")

    # All of them are due after step 12: it completes an epoch.
    config = small(tmp_path, train_steps=14, log_propagation_steps=12)
    with pytest.raises(Interrupted, match=r"after step 12, saved as .*step-12"):
        run(config.updated(log_steps=12), actions=[AtStep(11, ask), AtStep(12, fail)])
    assert "step 12 of" not in capsys.readouterr().out
    assert propagation_file.read(tmp_path / "propagation.csv").steps.tolist() == [0]
    assert metrics_file.read(tmp_path / "metrics.csv") == []
    run(config.updated(resume=True))
    # The evaluation that was due is made once.
    assert [row.step for row in metrics_file.read(tmp_path / "metrics.csv")] == [12, 14]


def test_on_a_full_disk_the_run_stops_and_keeps_its_checkpoints(tmp_path, monkeypatch, capsys):
    checkpoints = tmp_path / "checkpoints"
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill_the_disk():
        wait_for(checkpoints / "checkpoint")
        before.update(saved(tmp_path))
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, hard))

    before, sleep = {}, time.sleep
    # The pause before the second attempt to save.
    monkeypatch.setattr(time, "sleep", lambda seconds: sleep(min(seconds, 0.01)))
    try:
        with pytest.raises(SaveError) as error:
            run(small(tmp_path, checkpoint_steps=2), actions=[AtStep(3, fill_the_disk)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "Could not save step 4, twice in a row: File too large." in str(error.value)
    assert (
        "Could not save step 4: File too large. Earlier checkpoints are unharmed."
        in capsys.readouterr().out
    )
    assert names(checkpoints) == ["checkpoint", "step-2"]
    assert files.damage(checkpoints / "step-2") is None
    for name, value in saved(tmp_path).items():
        np.testing.assert_array_equal(value, before[name], err_msg=name)
    run(small(tmp_path, checkpoint_steps=2, resume=True))
    assert [row.step for row in metrics_file.read(tmp_path / "metrics.csv")] == [6]


def write_images(folder, count):
    random = np.random.default_rng(0)
    for name in ("ant", "bee"):
        (folder / name).mkdir(parents=True)
        for number in range(count):
            pixels = random.integers(0, 256, (20, 20, 3), np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{number}.png")


@pytest.mark.slow
def test_an_image_lost_during_training_is_named_and_the_run_saved(tmp_path, capsys):
    data, folder = tmp_path / "images", tmp_path / "run"
    write_images(data / "train", 5)
    write_images(data / "val", 1)
    lost, kept = data / "train" / "ant" / "3.png", tmp_path / "kept.png"
    config = small(
        folder,
        dataset="folder",
        data_dir=str(data),
        image_size=16,
        global_batch_size=5,
        train_steps=500,
        eval_epochs=10_000,
        log_steps=10_000,
    )
    with pytest.raises(ValueError, match="must stay readable") as error:
        run(config, actions=[AtStep(2, lambda: shutil.move(lost, kept))])
    assert str(lost) in str(error.value) and str(error.value).count(".png") == 1
    [newest] = [name for name in names(folder / "checkpoints") if "-" in name]
    step = int(newest.partition("-")[2])
    # The image is needed in every second step, and some images are read in advance.
    assert 2 <= step < 500
    line = f"Stopped after step {step}, saved as {folder / 'checkpoints' / newest}\n"
    assert line in capsys.readouterr().out
    with pytest.raises(ValueError, match=r"train_count +10 +9$"):
        run(config.updated(resume=True))
    shutil.move(kept, lost)
    run(config.updated(resume=True, train_steps=step + 1))
    assert f"Continuing after step {step}\n" in capsys.readouterr().out
