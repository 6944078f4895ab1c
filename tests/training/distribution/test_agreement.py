"""Comparison of flags, versions, compute plans and data between workers."""

import copy
import dataclasses
import re
import shutil
import time

import keras
import numpy as np
import pytest
import tensorflow as tf
from loopback import clusters, together
from small_runs import SMALL

from keras_preact import version
from keras_preact.data import load
from keras_preact.training import TrainConfig
from keras_preact.training.distribution.agreement import (
    Agreement,
    compare,
    facts_of_data,
    facts_of_flags,
    facts_of_plan,
    same_data,
)
from keras_preact.training.distribution.cluster import Cluster, WorkerLostError
from keras_preact.training.distribution.compute_plan import Machine, make_compute_plan

# Flags that may differ between hosts; docs/distributed.md names them as well.
MAY_DIFFER = (
    *("data_dir", "run_dir", "devices"),
    *("cluster_timeout_seconds", "max_runtime_minutes"),
)


def with_field(config, name, value):
    """Returns a copy with any value, allowed or not."""
    changed = copy.copy(config)
    object.__setattr__(changed, name, value)
    return changed


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(TrainConfig)])
def test_every_flag_is_compared_except_those_that_may_differ_between_hosts(name):
    changed = facts_of_flags(with_field(SMALL, name, "another"))
    assert (changed != facts_of_flags(SMALL)) == (name not in MAY_DIFFER)


@pytest.mark.parametrize(
    ("module", "name"),
    [(version, "keras_preact"), (tf, "TensorFlow"), (keras, "Keras"), (np, "NumPy")],
)
def test_versions_are_compared(monkeypatch, module, name):
    before = facts_of_flags(SMALL)
    monkeypatch.setattr(module, "__version__", "0.0.1")
    with pytest.raises(
        ValueError, match=rf"differ:\n +worker 0.*\n  version of {name}  .*0\.0\.1$"
    ):
        compare([before, facts_of_flags(SMALL)], "The same.")


CLUSTER = Cluster(("a:1", "b:1"), 0)
AMPERE, VOLTA = (8, 0), (7, 0)


@pytest.mark.parametrize(
    ("gpus", "others", "differing"),
    [
        ((AMPERE,), (AMPERE,), []),
        # The same flags, but all GPUs of each machine.
        ((AMPERE,), (AMPERE, AMPERE), ["devices"]),
        ((AMPERE,), (VOLTA,), ["precision"]),
        ((AMPERE,), (), ["devices", "precision", "xla"]),
    ],
)
def test_machines_with_other_compute_plans_are_told_apart(gpus, others, differing):
    decisions = [make_compute_plan(SMALL, Machine(each), CLUSTER) for each in (gpus, others)]
    left, right = map(facts_of_plan, decisions)
    assert [name for name in left if left[name] != right[name]] == differing


def test_other_devices_of_the_same_kind_and_number_count_as_the_same():
    machine = Machine((AMPERE,) * 4)
    wishes = ("2", "GPU:2,GPU:3")
    left, right = (
        make_compute_plan(SMALL.updated(devices=wish), machine, CLUSTER) for wish in wishes
    )
    assert left != right
    assert facts_of_plan(left) == facts_of_plan(right)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """A folder of images, 12 for each split."""
    root = tmp_path_factory.mktemp("photos")
    pixels = np.random.default_rng(0).integers(0, 256, (2, 2, 6, 9, 9, 3), np.uint8)
    for split, of_split in zip(("train", "val"), pixels, strict=True):
        for name, images in zip(("ant", "bee"), of_split, strict=True):
            for number, image in enumerate(images):
                path = root / split / name / f"{number}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(tf.io.encode_png(image).numpy())
    return root


def facts_of_photos(root):
    config = SMALL.updated(dataset="folder", data_dir=str(root))
    return facts_of_data(config, load("folder", data_dir=str(root), image_size=8))


def compare_photos(*roots):
    names = ("data_dir", "run_dir")
    compare([facts_of_photos(root) for root in roots], "The same.", same_data, names)


def test_the_same_images_in_another_folder_are_the_same_data(photos, tmp_path):
    shutil.copytree(photos, tmp_path / "mounted" / "elsewhere")
    (tmp_path / "link").symlink_to(photos)
    places = (photos, f"{photos}/", tmp_path / "link", tmp_path / "mounted" / "elsewhere")
    compare_photos(*places)


def cells(error):
    """Returns the cells of the table in a message."""
    return [re.split(" {2,}", line.strip()) for line in str(error.value).splitlines()[1:]]


def remove(folder):
    (folder / "train" / "ant" / "0.png").unlink()


def rename(folder):
    (folder / "val" / "bee" / "0.png").rename(folder / "val" / "bee" / "00.png")


def exchange_two_classes(folder):
    """Keeps the number of images in each class, and the mean."""
    for split in ("train", "val"):
        (folder / split / "ant").rename(folder / split / "cat")
        (folder / split / "bee").rename(folder / split / "ant")
        (folder / split / "cat").rename(folder / split / "bee")


def replace_one_for_evaluation(folder):
    image = tf.zeros((9, 9, 3), tf.uint8)
    (folder / "val" / "ant" / "3.png").write_bytes(tf.io.encode_png(image).numpy())


@pytest.mark.parametrize(
    ("harm", "differing"),
    [
        (remove, ["train_count", "mean", "std", "train images"]),
        (rename, ["eval images"]),
        (exchange_two_classes, ["train images", "eval images"]),
        (replace_one_for_evaluation, ["eval images"]),
    ],
)
def test_folders_of_other_images_are_told_apart(photos, tmp_path, harm, differing):
    other = tmp_path / "other"
    shutil.copytree(photos, other)
    harm(other)
    with pytest.raises(ValueError) as error:
        compare_photos(photos, photos, other)
    first, *rows = cells(error)
    assert first == ["workers 0-1", "worker 2"]
    # The message names folders and what is in them.
    assert rows[0] == ["data_dir", str(photos), str(other)]
    assert [row[0] for row in rows[1:]] == differing


@pytest.mark.parametrize(("factor", "same"), [(1, True), (1.0005, True), (1.002, False)])
def test_rounding_of_other_decoders_makes_no_other_data(digits_facts, factor, same):
    other = {**digits_facts, "mean": [factor * value for value in digits_facts["mean"]]}
    assert all(same_data(name, digits_facts[name], other[name]) for name in other) == same


def test_statistics_of_another_number_of_channels_are_others(digits_facts):
    assert not same_data("std", digits_facts["std"] * 3, digits_facts["std"])


@pytest.fixture(scope="module")
def digits_facts():
    return facts_of_data(SMALL, load("digits"))


def test_the_run_to_resume_must_be_the_same_wherever_it_is_mounted(tmp_path):
    data = load("digits")
    places = [tmp_path / name for name in ("here", "mounted", "other", "empty")]
    for place, text in zip(places, ("{}", "{}", '{"config": {}}', None), strict=True):
        place.mkdir()
        if text:
            (place / "config.json").write_text(text)

    def facts(**changes):
        return [
            facts_of_data(SMALL.updated(run_dir=str(place), **changes), data) for place in places
        ]

    # Only the chief writes a new run.
    compare(facts(), "The same.", same_data, ("data_dir", "run_dir"))
    for changes in ({"resume": True}, {"mode": "evaluate"}):
        here, mounted, other, empty = facts(**changes)
        compare([here, mounted], "The same.", same_data, ("data_dir", "run_dir"))
        for wrong in (other, empty):
            with pytest.raises(ValueError, match=r"(?s)run_dir.*config\.json  "):
                compare([here, wrong], "The same.", same_data, ("data_dir", "run_dir"))


def test_a_difference_is_shown_with_the_values_of_all_workers():
    facts = [{"seed": 0, "depth": 8}, {"seed": 0, "depth": 8, "lr": 0.1}, {"seed": 1, "depth": 8}]
    with pytest.raises(ValueError) as error:
        compare([*facts, facts[0], facts[0]], "Be alike.")
    assert str(error.value).splitlines() == [
        "Be alike. These differ:",
        "        workers 0, 3-4  worker 1  worker 2",
        "  seed  0               0         1",
        "  lr    (none)          0.1       (none)",
    ]


def test_each_of_many_workers_that_differ_has_a_line():
    with pytest.raises(ValueError) as error:
        compare([{"seed": index // 2} for index in range(64)], "Be alike.")
    lines = str(error.value).splitlines()
    assert len(lines) == 2 + 32
    assert lines[1].split() == ["seed"]
    assert lines[-1] == "  workers 62-63  31"


def test_equal_values_pass():
    compare([{"seed": 0, "steps": [1, 2]}] * 3, "Be alike.")
    compare([{}], "Be alike.")


@pytest.mark.parametrize(
    ("values", "shown"),
    [
        (("\x1b[2J", "a\nb"), ["'\\x1b[2J'", "'a\\nb'"]),
        ((None, "none"), ["None", "none"]),
        (([1, 2], [1]), ["[1, 2]", "[1]"]),
    ],
)
def test_values_are_shown_escaped(values, shown):
    with pytest.raises(ValueError) as error:
        compare([{"name": value} for value in values], "Be alike.")
    assert cells(error)[1] == ["name", *shown]


def test_long_values_that_begin_and_end_alike_are_shown_apart():
    with pytest.raises(ValueError) as error:
        compare([{"name": "-" * 999 + middle + "-" * 999} for middle in "ab"], "Be alike.")
    _, left, right = cells(error)[1]
    assert left != right and len(left) == len(right) < 100


def agreeing(cluster, config, refusal=None, data=None):
    """Goes through an agreement as a worker, or raises its own refusal first."""
    with Agreement(config, cluster) as between:
        if refusal:
            raise refusal
        between.on_plan(make_compute_plan(config, Machine(), cluster))
        between.on_data(data or load("digits"))


def outcomes(*arguments):
    """Calls `agreeing` for workers with these arguments, all at once."""
    return together(
        *(
            lambda own=own, c=c: agreeing(c, *own)
            for own, c in zip(arguments, clusters(len(arguments)), strict=True)
        )
    )


def test_workers_of_the_same_flags_agree():
    config = SMALL.updated(global_batch_size=120)
    others = config.updated(devices="cpu", run_dir="runs/other", max_runtime_minutes=5.0)
    assert outcomes((config,), (others,), (config,)) == [None] * 3


def test_if_flags_differ_all_workers_end_with_one_error():
    other = SMALL.updated(global_batch_size=64, seed=3)
    errors = outcomes((SMALL,), (other,), (SMALL,))
    assert all(type(error) is ValueError for error in errors)
    assert len({str(error) for error in errors}) == 1
    assert str(errors[0]).splitlines()[1:] == [
        "                     workers 0, 2  worker 1",
        "  seed               0             3",
        "  global_batch_size  128           64",
    ]


@pytest.mark.parametrize("refused", [0, 1])
def test_a_worker_refused_for_other_flags_tells_all_which_they_are(refused):
    """Batches of 33 images cannot be cut in two; the others would wait for this worker."""
    arguments = [(SMALL,), (SMALL,)]
    arguments[refused] = (SMALL.updated(global_batch_size=33),)
    errors = outcomes(*arguments)
    assert str(errors[0]) == str(errors[1])
    assert "global_batch_size" in str(errors[0]) and "multiple" not in str(errors[0])


def test_a_worker_refused_with_the_same_flags_says_why_and_the_others_that_it_has_ended():
    first, second = outcomes((SMALL,), (SMALL, ValueError("no such folder here")))
    assert str(second) == "no such folder here"
    assert isinstance(first, WorkerLostError) and "Lost worker 1" in str(first)


def test_a_worker_that_is_refused_alone_soon_says_why():
    config, began = SMALL.updated(cluster_timeout_seconds=1), time.monotonic()
    with pytest.raises(ValueError, match="no such folder"):
        agreeing(clusters(2)[0], config, ValueError("no such folder"))
    assert time.monotonic() - began < 5


def test_other_data_are_refused_by_all(photos, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(photos, other)
    replace_one_for_evaluation(other)
    data = [load("folder", data_dir=str(root), image_size=8) for root in (photos, other)]
    errors = outcomes((SMALL, None, data[0]), (SMALL, None, data[1]))
    assert all(type(error) is ValueError for error in errors)
    assert str(errors[0]) == str(errors[1])
    assert "must find the same files" in str(errors[0]) and "eval images" in str(errors[0])


def test_one_process_agrees_with_itself_and_its_errors_pass():
    agreeing(None, SMALL)
    began = time.monotonic()
    with pytest.raises(ValueError, match="no such folder"):
        agreeing(None, SMALL, ValueError("no such folder"))
    assert time.monotonic() - began < 0.1


def test_a_file_of_class_weights_is_compared_by_its_contents(tmp_path):
    data, found = load("digits"), []
    for text in ('{"0": 1}', '{"0": 2}', '{"0": 1}'):
        (tmp_path / "weights.json").write_text(text)
        config = SMALL.updated(class_weights=str(tmp_path / "weights.json"))
        found.append(facts_of_data(config, data)["class_weights"])
    assert found[0] == found[2] != found[1]
    assert "class_weights" not in facts_of_data(SMALL.updated(class_weights="auto"), data)
