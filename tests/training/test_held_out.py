"""The test split, which training never sees, evaluated once at the end."""

import csv
import json
import os
import signal
import time

import numpy as np
import pytest
from sklearn.datasets import load_digits
from small_labels import of_csv, write_csv
from small_runs import events, small

from keras_preact.data import Dataset
from keras_preact.evaluation import evaluate
from keras_preact.training import Interrupted, load_run, run
from keras_preact.training.run_folder import RunFolder, configure

pytestmark = pytest.mark.usefixtures("without_pictures")


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """A CSV of images of three classes, in three splits."""
    return write_csv(tmp_path_factory.mktemp("images"), several=False)


@pytest.fixture
def looks(monkeypatch):
    """Counts how often the test split is asked for."""
    calls, original = [], Dataset.for_test

    def counted(self):
        calls.append(1)
        return original(self)

    monkeypatch.setattr(Dataset, "for_test", counted)
    return calls


def result(folder):
    return json.loads((folder / "test.json").read_text())


def accuracy(folder, checkpoint):
    """The accuracy on the test split, by Keras' own predict."""
    from keras_preact.data import datasets

    config, info = RunFolder(folder).read()
    data = datasets.load(
        "csv", data_dir=config.data_dir, image_size=16, like=info.preprocessing
    ).for_test()
    model = load_run(str(folder), checkpoint)
    images, labels, weights = next(data.eval(data.info.eval_count).as_numpy_iterator())
    assert weights.all() and len(images) == 12
    logits = model.predict(data.info.normalize(images), verbose=0)
    return np.mean(logits.argmax(axis=1) == labels)


def test_the_test_split_is_reported_once_with_the_newest_weights(tmp_path, table, looks, capsys):
    config = of_csv(table, tmp_path)
    run(config)
    found = result(tmp_path)
    assert len(looks) == 1
    assert (found["step"], found["checkpoint"], found["images"]) == (4, "newest", 12)
    assert found["scores"]["accuracy"] == pytest.approx(accuracy(tmp_path, "newest"))
    assert f"Test split, newest weights, of step 4: {found['line']}" in capsys.readouterr().out
    [event] = events(tmp_path, "test").Tensors("accuracy")
    assert event.step == 4
    assert set(found["class_f1"]) == {"parts0", "parts1", "parts2"}

    looks.clear()
    (tmp_path / "test.json").write_text(json.dumps({**found, "line": "as it was"}))
    run(config.updated(resume=True))
    assert looks == [] and "newest weights, of step 4: as it was" in capsys.readouterr().out
    # Of a run that goes on, the end is another.
    run(config.updated(resume=True, train_steps=5))
    assert result(tmp_path)["step"] == 5


def test_a_run_with_validation_images_is_tested_on_the_split_of_its_data_set(tmp_path):
    config = small(tmp_path, validation_images=137, train_steps=12, eval_epochs=1, seed=3)
    evaluation = run(config.updated(class_weights="auto"))
    assert evaluation.count == 137
    with (tmp_path / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    # An epoch is 1,300 images.
    assert [int(row["step"]) for row in rows if row["eval_accuracy"]] == [11, 12]
    found = result(tmp_path)
    assert (found["step"], found["checkpoint"], found["images"]) == (12, "newest", 360)
    bunch = load_digits()
    images = np.round(bunch.images[::5] * (255 / 16))[..., None]
    _, info = RunFolder(tmp_path).read()
    model = load_run(str(tmp_path))
    logits = model.predict(info.normalize(images.astype(np.uint8)), verbose=0)
    expected = np.mean(logits.argmax(axis=1) == bunch.target[::5])
    assert found["scores"]["accuracy"] == pytest.approx(expected)

    # Whoever measures the run later has the same images.
    assert run(configure({"run_dir": str(tmp_path), "mode": "evaluate"})).count == 137
    for split, count in (("val", 137), ("test", 360), ("train", 1300)):
        options = {"split": split, "output": str(tmp_path / "evaluation" / split)}
        assert len(evaluate(tmp_path, resamples=0, shown_images=0, **options).answers) == count
    with pytest.raises(ValueError, match=r"(?s)must be as they were.*validation_images +137 +138"):
        run(config.updated(resume=True, class_weights="auto", validation_images=138))


@pytest.mark.slow
def test_with_early_stopping_the_best_weights_are_tested(tmp_path, table):
    options = {"freeze_bn": "all", "learning_rate": 1e-30, "weight_decay": 0.0}
    run(of_csv(table, tmp_path, early_stopping_epochs=1, train_steps=20, **options))
    found = result(tmp_path)
    assert (found["step"], found["end_step"], found["checkpoint"]) == (2, 4, "best")
    assert found["scores"]["accuracy"] == pytest.approx(accuracy(tmp_path, "best"))


@pytest.mark.slow
def test_a_run_that_is_stopped_before_the_test_split_evaluates_it_when_resumed(
    tmp_path, table, monkeypatch
):
    original = Dataset.for_test

    def stopped(self):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.2)  # until another thread has heard it
        return original(self)

    with monkeypatch.context() as patch:
        patch.setattr(Dataset, "for_test", stopped)
        with pytest.raises(Interrupted, match="SIGTERM, after step 4, before the test split"):
            run(of_csv(table, tmp_path))
    assert not (tmp_path / "test.json").exists()
    run(of_csv(table, tmp_path, resume=True))
    assert result(tmp_path)["step"] == 4
