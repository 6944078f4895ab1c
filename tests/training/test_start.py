"""What a run decides as it starts, and what it takes from its own record as it goes on."""

import dataclasses

import pytest
from image_encoding import encode, smooth_image

from keras_preact.data import DatasetInfo, load
from keras_preact.training import TrainConfig
from keras_preact.training.distribution.compute_plan import ComputePlan
from keras_preact.training.run_folder import RunFolder
from keras_preact.training.start import Start, changed_fields

PLAN = ComputePlan("one_device", ("CPU:0",), 1, "float32", False, {"strategy": "as given"})
INFO = DatasetInfo("folder", ("a", "b"), (96, 96, 3), 10, 5, (1.0,) * 3, (2.0,) * 3, 1.0)
RULE = {"schedule_rule": "bit", "depth": 8, "dataset": "folder", "global_batch_size": 4}


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    for split, count in (("train", 6), ("val", 2)):
        for number in range(count):
            path = folder / split / "ab"[number % 2]
            path.mkdir(parents=True, exist_ok=True)
            (path / f"{number}.png").write_bytes(encode(smooth_image(20, 30, number)))
    return str(folder)


def started(config, folder, given=None):
    """Takes the steps of a start; loads the data as a run does."""
    start = Start(config, changed_fields(config) if given is None else given)
    start.go_on(RunFolder(folder))
    start.read_origin(RunFolder(folder))
    options = {"data_dir": config.data_dir, "image_size": start.config.image_size}
    start.know_data(load(config.dataset, **options))
    return start


def test_the_rule_decides_schedule_and_size_and_says_so(photos, tmp_path):
    start = started(TrainConfig(**RULE, data_dir=photos), tmp_path / "run")
    config = start.config
    assert (config.image_size, config.schedule_steps) == (128, 500)
    assert (config.drop_steps, config.warmup_steps) == ((150, 300, 450), 0)
    assert start.notes == [
        "schedule_rule=bit: 6 images are a small task: 500 steps of 4, learning rate 0.000390625, "
        "drops at 150, 300, 450, mixup 0, images of 128 pixels"
    ]


def test_what_is_given_wins_also_where_it_is_the_default(photos, tmp_path):
    config = TrainConfig(**RULE, data_dir=photos, image_size=16, drop_steps=(), train_epochs=2.0)
    config = dataclasses.replace(config, learning_rate=0.1)
    start = started(config, tmp_path, {*changed_fields(config), "mixup_alpha"})
    assert (start.config.image_size, start.config.drop_steps) == (16, ())
    assert (start.config.learning_rate, start.config.schedule_steps) == (0.1, 3)
    assert "learning rate 0.1, drops at no step" in start.notes[0]


def test_images_of_one_size_keep_it(tmp_path):
    start = started(TrainConfig(**RULE | {"dataset": "digits"}), tmp_path)
    assert start.config.image_size is None and start.config.schedule_steps > 500


def test_a_run_that_goes_on_decides_nothing_again(photos, tmp_path):
    folder = RunFolder(tmp_path / "run")
    first = TrainConfig(**RULE, data_dir=photos, resume=True)
    recorded = dataclasses.replace(
        first, init_from="gone", unit="original", learning_rate=0.5, drop_steps=(7,), image_size=96
    )
    folder.begin(recorded, INFO, PLAN)
    (folder.checkpoints / "step-3").mkdir(parents=True)
    again = dataclasses.replace(first, train_steps=9)
    start = started(again, folder.path)
    assert start.config.resolved() == dataclasses.replace(recorded, train_steps=9).resolved()
    assert start.like == INFO.preprocessing and start.notes == []
    folder.check_free(start.config)


def test_values_given_to_a_run_that_goes_on_are_refused_where_they_change_what_is_learned(
    photos, tmp_path
):
    folder = RunFolder(tmp_path / "run")
    config = TrainConfig(**RULE, data_dir=photos, resume=True)
    folder.begin(dataclasses.replace(config, learning_rate=0.5), INFO, PLAN)
    start = Start(dataclasses.replace(config, learning_rate=0.25), {"learning_rate"})
    start.go_on(folder)
    with pytest.raises(ValueError, match=r"learning_rate +0\.5 +0\.25"):
        folder.check_free(start.config)


def test_a_line_says_what_is_frozen_and_until_when(tmp_path):
    options = {"dataset": "digits", "depth": 8}
    for changes, line in (
        ({"freeze": ("stem", "stage1"), "thaw_epoch": 2.0}, "Frozen until epoch 2: stem, stage1"),
        ({"freeze": ("all_but_head",)}, "Frozen until the end: all_but_head"),
    ):
        assert started(TrainConfig(**options, **changes), tmp_path).notes == [line]
