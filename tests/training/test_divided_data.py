"""Runs on images that bring no split, and on classes of unequal size."""

import csv

import numpy as np
import pytest
from image_encoding import encode
from same_runs import assert_same_runs
from small_runs import AtStep

from keras_preact.exporting.config import ExportConfig
from keras_preact.exporting.source import read as read_source
from keras_preact.training import TrainConfig, run
from keras_preact.training.run import restore_data
from keras_preact.training.run_folder import RunFolder

pytestmark = pytest.mark.slow


def write_images(root, count):
    for n in range(count):
        name = "rare" if n % 5 == 0 else "common"
        pixels = np.random.default_rng(n).integers(0, 256, (9, 9, 3), dtype=np.uint8)
        (root / name).mkdir(parents=True, exist_ok=True)
        (root / name / f"{n}.png").write_bytes(encode(pixels))


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    root = tmp_path_factory.mktemp("images")
    write_images(root, 60)
    return root


def config(folder, images, **changes):
    values = {"dataset": "folder", "data_dir": str(images), "split": (60, 20, 20)}
    sizes = {"depth": 8, "image_size": 16, "global_batch_size": 8, "train_steps": 12}
    return TrainConfig(
        run_dir=str(folder), checkpoint_steps=3, warmup_steps=2, **values | sizes | changes
    )


class Killed(BaseException):
    """Ends the process in this test."""


def kill():
    raise Killed


def test_a_run_with_balanced_sampling_goes_on_to_the_bit_and_keeps_its_splits(tmp_path, images):
    whole = config(tmp_path / "whole", images, sampling="balanced")
    run(whole)
    table = (tmp_path / "whole" / "split.csv").read_text()
    rows = list(csv.DictReader(table.splitlines()))
    assert len(rows) == 60 and {row["split"] for row in rows} == {"train", "val", "test"}
    parts = config(tmp_path / "parts", images, sampling="balanced")
    with pytest.raises(Killed):
        run(parts, actions=[AtStep(5, kill)])
    run(parts.updated(resume=True))
    assert_same_runs(tmp_path / "whole", tmp_path / "parts")
    assert (tmp_path / "parts" / "split.csv").read_text() == table
    data = restore_data(RunFolder(tmp_path / "whole"))
    assert data.division.to_csv().decode() == table
    assert (
        read_source(ExportConfig(run_dir=str(tmp_path / "whole"))).data.digests() == data.digests()
    )
    # A new image would change what is learned from.
    pixels = np.zeros((9, 9, 3), np.uint8)
    (images / "rare" / "new.png").write_bytes(encode(pixels))
    with pytest.raises(ValueError, match=r"(?s)in the splits of .*rare/new.png  absent      "):
        run(parts.updated(resume=True, train_steps=20))
    (images / "rare" / "new.png").unlink()
