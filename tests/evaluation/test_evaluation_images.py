"""Which images an evaluation takes, and how their classes meet those of the model."""

import dataclasses

import numpy as np
import pytest
from colour_net import NAMES, SQUARE, colour_model, write_colours

from keras_preact.evaluation import EvaluateConfig, evaluate, images, models
from keras_preact.training import TrainConfig

COUNTS = {"blue": 4, "green": 3, "red": 2}


def _evaluate(model=None, **options):
    return evaluate(model or colour_model(), resamples=0, shown_images=0, **options)


@pytest.fixture(scope="module")
def flat(tmp_path_factory):
    return write_colours(tmp_path_factory.mktemp("flat") / "photos", COUNTS)


@pytest.fixture(scope="module")
def divided(tmp_path_factory):
    root = tmp_path_factory.mktemp("divided")
    write_colours(root / "train", COUNTS)
    write_colours(root / "valid", dict.fromkeys(COUNTS, 2), seed=1)
    write_colours(root / "test", {"red": 5}, seed=2)
    return root


def test_every_image_of_a_flat_folder_is_taken(flat):
    found = _evaluate(data_dir=str(flat))
    assert (found.split, len(found.answers), found.numbers["accuracy"]) == ("all", 9, 1)
    assert found.names[0].endswith("photos/blue/0.png")
    assert found.answers.labels.tolist() == [2] * 4 + [1] * 3 + [0] * 2


@pytest.mark.parametrize(
    ("split", "count"), [(None, 6), ("val", 6), ("test", 5), ("train", 9), ("all", 20)]
)
def test_a_divided_folder_has_its_splits(divided, split, count):
    found = _evaluate(dataset="folder", data_dir=str(divided), split=split)
    assert len(found.answers) == count and found.numbers["accuracy"] == 1
    assert found.split == (split or "val")


def test_a_split_that_is_not_there_is_refused(divided, tmp_path):
    root = tmp_path / "data"
    write_colours(root / "train", COUNTS)
    with pytest.raises(ValueError, match=r"split must be train or all.*Received: split=test"):
        _evaluate(data_dir=str(root), split="test")
    # Percentages divide the images for training where there are none for validation.
    assert len(_evaluate(data_dir=str(root), split="all").answers) == 9
    both = [_evaluate(data_dir=str(root), split=s, divide=(50, 50)) for s in ("train", "val")]
    assert sum(len(each.answers) for each in both) == 9


def test_a_csv_file_has_its_splits_or_is_divided_or_taken_whole(tmp_path):
    folder = write_colours(tmp_path / "photos", COUNTS)
    paths = sorted(folder.rglob("*.png"))
    rows = [f"photos/{path.parent.name}/{path.name},{path.parent.name}" for path in paths]
    whole, parted = tmp_path / "whole.csv", tmp_path / "parted.csv"
    whole.write_text("\n".join(["path,label", *rows]))
    splits = [("train", "val", "test")[number % 3] for number in range(len(rows))]
    lines = [f"{row},{split}" for row, split in zip(rows, splits, strict=True)]
    parted.write_text("\n".join(["path,label,split", *lines]))
    found = _evaluate(data_dir=str(whole))
    assert (found.split, len(found.answers), found.numbers["accuracy"]) == ("all", 9, 1)
    for split in ("train", "val", "test"):
        found = _evaluate(dataset="csv", data_dir=str(parted), split=split)
        assert len(found.answers) == 3 and found.numbers["accuracy"] == 1
    assert _evaluate(data_dir=str(parted)).split == "val"


def test_images_of_several_classes_have_their_own_numbers(tmp_path):
    folder = write_colours(tmp_path / "photos", COUNTS)
    labels = {"red": "red|green", "green": "green", "blue": ""}
    rows = [
        f"photos/{p.parent.name}/{p.name},{labels[p.parent.name]}" for p in folder.rglob("*.png")
    ]
    (tmp_path / "labels.csv").write_text("\n".join(["path,label", *rows]))
    model = colour_model(preprocessing=SQUARE.replace(multi_label=True))
    output = tmp_path / "report"
    found = evaluate(model, data_dir=str(tmp_path / "labels.csv"), output=str(output), resamples=20)
    # Its probabilities add up to 1, and so reach a half for one class at most.
    assert found.numbers["mean_average_precision"] > 0.7
    # The data do not name the class blue.
    assert found.answers.class_names == ("red", "green")
    assert found.answers.labels.sum(axis=0).tolist() == [2, 5]
    written = {path.name for path in output.iterdir()}
    assert {"average_precision.png", "per_class.csv", "predictions.csv"} < written
    assert "confusion.csv" not in written
    with pytest.raises(ValueError, match="a probability of its own"):
        _evaluate(data_dir=str(tmp_path / "labels.csv"))


def test_an_undivided_folder_is_divided_as_training_divides_it(tmp_path):
    folder = write_colours(tmp_path / "photos", dict.fromkeys(NAMES, 13))
    parts = [
        _evaluate(data_dir=str(folder), split=split, divide=(40, 30, 30))
        for split in ("train", "val", "test")
    ]
    names = [set(part.names) for part in parts]
    assert all(names) and len(set.union(*names)) == sum(map(len, names)) == 39
    every = _evaluate(data_dir=str(folder), split="all", divide=(40, 30, 30))
    assert set(every.names) == set.union(*names)


def test_classes_are_matched_by_name_in_any_order(flat):
    expected = _evaluate(data_dir=str(flat))
    found = _evaluate(colour_model(("blue", "red", "green")), data_dir=str(flat))
    assert found.numbers == expected.numbers
    assert found.answers.labels.tolist() == [0] * 4 + [2] * 3 + [1] * 2


def test_data_may_have_some_of_the_classes(divided):
    found = _evaluate(data_dir=str(divided), split="test")
    assert found.images.class_names == ("red",)
    assert found.numbers["accuracy_among_data_classes"] == 1
    assert found.measures.by_class["images"].tolist() == [5, 0, 0]


def test_unknown_classes_are_listed(tmp_path):
    folder = write_colours(tmp_path / "photos", {"red": 1})
    for name in ("cyan", "teal"):
        (folder / name).mkdir()
        (folder / name / "0.png").write_bytes((folder / "red" / "0.png").read_bytes())
    with pytest.raises(ValueError, match=r"'red', 'green', 'blue'.*unknown to it: 'cyan', 'teal'"):
        _evaluate(data_dir=str(folder))


def test_a_model_without_names_takes_as_many_classes_in_order(flat):
    nameless = colour_model(("blue", "green", "red"))
    nameless = dataclasses.replace(nameless, preprocessing=SQUARE.replace(class_names=()))
    assert _evaluate(nameless, data_dir=str(flat)).numbers["accuracy"] == 1
    with pytest.raises(ValueError, match="3 classes of the model, which knows none by name"):
        _evaluate(nameless, dataset="digits")


def test_unreadable_files_are_left_out_and_told(tmp_path):
    folder = write_colours(tmp_path / "photos", COUNTS)
    (folder / "blue" / "0.png").write_bytes(b"")
    (folder / "red" / "note.txt").write_text("text")
    found = _evaluate(data_dir=str(folder))
    assert len(found.answers) == 8 and found.numbers["accuracy"] == 1
    assert [name.rpartition("/")[2] for name in found.problems] == ["0.png", "note.txt"]
    assert found.problems[str(folder / "blue" / "0.png")] == "empty file"


def test_no_readable_image_is_an_error(tmp_path):
    (tmp_path / "red").mkdir()
    (tmp_path / "red" / "a.png").write_text("text")
    with pytest.raises(ValueError, match="At least one image must be readable"):
        _evaluate(data_dir=str(tmp_path))


def test_images_in_memory_of_another_size_are_resized_as_files_are():
    shape = SQUARE.replace(image_shape=(12, 12, 1), mean=(0.0,), std=(1.0,))
    computed = []
    digits = tuple(map(str, range(10)))
    model = dataclasses.replace(colour_model(digits, shape, computed), network=None)
    model = dataclasses.replace(
        model,
        probabilities=lambda images: (
            computed.append(np.asarray(images)) or np.full((len(images), 10), 0.1, np.float32)
        ),
    )
    found = _evaluate(model, dataset="digits")
    assert len(found.answers) == 360 and computed[0].shape == (128, 12, 12, 1)


@pytest.mark.parametrize(
    ("given", "run", "expected"),
    [
        ({"data_dir": "a.csv"}, None, ("csv", "a.csv")),
        ({"data_dir": "photos"}, None, ("folder", "photos")),
        ({}, ("folder", "photos"), ("folder", "photos")),
        ({"data_dir": "moved"}, ("folder", "photos"), ("folder", "moved")),
        ({"data_dir": "other"}, ("digits", None), ("folder", "other")),
        ({"dataset": "digits"}, ("folder", "photos"), ("digits", None)),
        ({"dataset": "folder"}, ("folder", "photos"), ("folder", "photos")),
    ],
    ids=str,
)
def test_the_data_are_those_of_the_run_where_the_flags_do_not_say(given, run, expected):
    config = EvaluateConfig(model="net", **given)
    run = run and TrainConfig(dataset=run[0], data_dir=run[1])
    model = models.Model("net", colour_model(), run)
    assert images._data_set(config, model) == expected


def test_a_model_without_a_run_needs_data():
    with pytest.raises(ValueError, match="dataset or data_dir must be given"):
        _evaluate()
    with pytest.raises(ValueError, match="dataset=folder needs data_dir"):
        _evaluate(dataset="folder")
    with pytest.raises(ValueError, match="digits has no other"):
        _evaluate(colour_model(tuple(map(str, range(10)))), dataset="digits", split="test")
