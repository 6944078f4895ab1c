"""Folders without a split, or with a part of one; copies of images in them."""

import os

import numpy as np
import pytest
from sample_data import encode, load_folder, write_files

from keras_preact.data import checked, datasets, folder, reading
from keras_preact.data.splitting import SPLITS
from keras_preact.layers import Preprocessing

pytestmark = pytest.mark.usefixtures("no_network")


def image(number):
    """A small PNG whose contents no other number has."""
    return encode(np.random.default_rng(number).integers(0, 256, (4, 5, 3), dtype=np.uint8))


def flat(count=40, classes=("ant", "bee"), prefix=""):
    return {f"{prefix}{classes[n % len(classes)]}/{n:03}.png": image(n) for n in range(count)}


# Mean and deviation need not be measured.
LIKE = Preprocessing((4, 4, 3), (100.0,) * 3, (50.0,) * 3, 1.0)


def load(root, **options):
    return datasets.load("folder", data_dir=str(root), image_size=4, like=LIKE, **options)


def split_of(data):
    """{path: split} of all images."""
    sources = zip(SPLITS, (data.train_source, data.eval_source, data.test_source), strict=True)
    return {
        source.where(index): split
        for split, source in sources
        if source is not None
        for index in range(len(source))
    }


def lines(capsys):
    """The printed lines, without those of passes that take a while on a busy machine."""
    passes = ("Checking image files", "Kept in", "Mean and deviation")
    return [line for line in capsys.readouterr().out.splitlines() if not line.startswith(passes)]


def named(data, root):
    return {os.path.relpath(path, root): split for path, split in split_of(data).items()}


def test_class_folders_alone_are_divided_and_one_line_says_so(tmp_path, capsys):
    write_files(tmp_path, flat())
    data = load(tmp_path)
    [line] = lines(capsys)
    counts = data.info.train_count, data.info.eval_count, data.info.test_count
    assert sum(counts) == 40 and counts[0] > 25 and min(counts) > 0
    assert "80 % for training, 10 % for validation, 10 % for test" in line and "--split" in line
    assert "{:,}, {:,}, {:,} images".format(*counts) in line
    again = load(tmp_path, split=(80, 10, 10))
    assert lines(capsys) == []
    assert split_of(again) == split_of(data) and again.digests() == data.digests()
    assert set(data.digests()) == {"train", "eval", "test"}
    assert load(tmp_path, split=(70, 30)).test_source is None


def test_no_image_moves_to_another_split_when_files_come_and_go_or_the_folder_moves(tmp_path):
    root = tmp_path / "here"
    write_files(root, flat(60))
    before = named(load(root), root)
    for n in range(0, 60, 7):
        next(root.glob(f"*/{n:03}.png")).unlink()
    write_files(root, {f"wasp/{n}.png": image(1000 + n) for n in range(30)})
    root.rename(tmp_path / "there")
    after = named(load(tmp_path / "there"), tmp_path / "there")
    kept = before.keys() & after.keys()
    assert len(kept) == 60 - 9 and len(after) == 60 - 9 + 30
    assert all(after[path] == before[path] for path in kept)


def test_copies_are_in_one_split_wherever_they_lie_and_whenever_they_come(tmp_path, capsys):
    files = flat()
    write_files(tmp_path, files)
    before = named(load(tmp_path), tmp_path)
    copies = {path: path.replace(".png", " (copy).png") for path in list(files)[:9]}
    write_files(tmp_path, {copy: files[path] for path, copy in copies.items()})
    capsys.readouterr()
    data = load(tmp_path, split=(80, 10, 10))
    after = named(data, tmp_path)
    assert all(after[copy] == after[path] == before[path] for path, copy in copies.items())
    groups = {
        tuple(os.path.relpath(path, tmp_path) for path in g) for g in data.findings.duplicates
    }
    assert groups == {tuple(sorted(pair)) for pair in copies.items()}
    [line] = lines(capsys)
    assert line.startswith(f"Found 9 images of {tmp_path} with exact copies, such as ")
    assert "ant/000 (copy).png = ant/000.png" in line and "in one split" in line


def test_copies_across_given_splits_are_reported_and_stay(tmp_path, capsys):
    files = {
        f"{split}/{name}": data for split in ("train", "val") for name, data in flat(6).items()
    }
    files |= {"val/bee/more.png": image(50), "train/bee/more.png": image(51)}
    write_files(tmp_path, files)
    data = load(tmp_path)
    assert (data.info.train_count, data.info.eval_count) == (7, 7)
    assert len(data.findings.duplicates) == 6
    [line] = lines(capsys)
    assert line.startswith(f"Found 6 images of {tmp_path} in more than one split, such as ")
    assert "train/ant/000.png = val/ant/000.png" in line


def test_copies_of_other_classes_are_reported(tmp_path, capsys):
    write_files(tmp_path, {**flat(), "bee/again.png": image(0)})
    load(tmp_path, split=(80, 20))
    assert lines(capsys)[1] == (
        f"Found 1 image of {tmp_path} with copies of another label, such as "
        "ant/000.png = bee/again.png"
    )


def test_later_starts_hash_new_and_changed_files_alone(tmp_path, monkeypatch):
    write_files(tmp_path, flat())
    for path in tmp_path.rglob("*.png"):
        os.utime(path, (1e9, 1e9))
    first = split_of(load(tmp_path))
    seen = []

    def counting(paths, covered):
        seen.extend(paths)
        return reading.decodable(paths, covered)

    monkeypatch.setattr(checked, "decodable", counting)
    write_files(tmp_path, {"ant/new.png": image(77)})
    second = split_of(load(tmp_path))
    assert seen == [str(tmp_path / "ant" / "new.png")]
    assert {path: second[path] for path in first} == first


@pytest.mark.parametrize("name", ["val", "valid", "validation"])
def test_a_folder_for_validation_has_one_of_three_names(tmp_path, name, capsys):
    files = flat(6, prefix="train/") | {f"{name}/{c}/1.png": image(len(c)) for c in ("ant", "bee")}
    write_files(tmp_path, files | {f"{name}/bee/2.png": image(9)})
    train, evaluation, names = load_folder(str(tmp_path), 4)
    assert (len(train), len(evaluation), names) == (6, 3, ["ant", "bee"])


def test_a_folder_for_test_may_stand_beside_the_two_others_and_lack_classes(tmp_path):
    files = flat(6, prefix="train/") | {"val/ant/1.png": image(20), "val/bee/1.png": image(21)}
    write_files(tmp_path, files | {"test/bee/1.png": image(22)})
    data = load(tmp_path)
    assert data.info.test_count == 1
    assert data.test_source.labels.tolist() == [1]
    assert split_of(data)[str(tmp_path / "test/bee/1.png")] == "test"
    (_, labels, weights), *_ = data.for_test().eval(2).as_numpy_iterator()
    assert labels.tolist() == [1, 1] and weights.tolist() == [1, 0]
    assert data.unreadable("test", [0]) == []
    write_files(tmp_path, {"test/wasp/1.png": image(23)})
    with pytest.raises(ValueError, match=r"test must hold no other classes than train/\. .* wasp$"):
        load(tmp_path)


@pytest.mark.parametrize("name", ["1.png", "unknown/1.png"])
def test_images_for_test_without_labels_are_left_out(tmp_path, name, capsys):
    files = flat(6, prefix="train/") | {"val/ant/1.png": image(20), "val/bee/1.png": image(21)}
    write_files(tmp_path, files | {f"test/{name}": image(22)})
    assert load(tmp_path).test_source is None
    assert lines(capsys) == [f"{tmp_path}/test is left out: it has no folder of a class."]


def test_training_images_are_divided_in_two_where_those_for_test_are_given(tmp_path, capsys):
    write_files(tmp_path, flat(40, prefix="train/") | flat(4, prefix="test/"))
    data = load(tmp_path)
    line = lines(capsys)[0]
    assert "90 % for training, 10 % for validation, test as it is" in line
    assert data.info.test_count == 4
    assert data.info.train_count + data.info.eval_count == 40
    assert {path for path, s in named(data, tmp_path).items() if s == "test"} == set(
        flat(4, prefix="test/")
    )
    assert load(tmp_path, split=(50, 50)).info.eval_count > data.info.eval_count
    with pytest.raises(ValueError, match=r"must be two percentages.*Received: split=80,10,10"):
        load(tmp_path, split=(80, 10, 10))


def test_training_images_alone_are_divided(tmp_path):
    write_files(tmp_path, flat(40, prefix="train/"))
    write_files(tmp_path / "flat", flat(40))
    one, other = load(tmp_path), load(tmp_path / "flat")
    assert set(named(one, tmp_path / "train").items()) == set(
        named(other, tmp_path / "flat").items()
    )


def test_percentages_beside_a_split_of_its_own_are_refused(tmp_path):
    write_files(tmp_path, flat(6, prefix="train/") | flat(6, prefix="val/"))
    with pytest.raises(ValueError, match=r"validation already: leave split out\. .*=80,10,10"):
        load(tmp_path, split=(80, 10, 10))


def test_a_class_named_like_a_split_is_a_class(tmp_path):
    write_files(tmp_path, flat(40, classes=("bus", "train")))
    assert load(tmp_path, split=(80, 20)).info.class_names == ("bus", "train")


def test_images_in_folders_of_class_folders_count(tmp_path):
    files = {path.replace("/0", "/2021/spring/0"): data for path, data in flat().items()}
    write_files(tmp_path, files | {"ant/.cache/1.png": image(99), "bee/top.png": image(98)})
    (tmp_path / "ant" / "2021" / "loop").symlink_to(tmp_path / "ant")
    data = load(tmp_path, split=(80, 20))
    assert data.info.train_count + data.info.eval_count == 41
    assert data.class_counts("train").sum() == data.info.train_count
    assert folder.median_pixels(str(tmp_path)) == 20


def test_a_split_without_images_is_refused_with_advice(tmp_path):
    write_files(tmp_path, flat(2))
    with pytest.raises(ValueError, match=r"must have images to .*Of 2 files, --split=98,2 leaves"):
        load(tmp_path, split=(98, 2))


def test_a_class_without_training_images_is_a_line_and_no_error(tmp_path, capsys):
    write_files(tmp_path, flat(30))
    before = split_of(load(tmp_path, split=(50, 50)))
    # Some image that is not for training is the only one of its class.
    number = next(n for n in range(100, 200) if _is_for_validation(tmp_path, n))
    write_files(tmp_path, {"wasp/only.png": image(number)})
    capsys.readouterr()
    data = load(tmp_path, split=(50, 50))
    assert lines(capsys) == [
        f"Without a training image, 1 of 3 classes of {tmp_path} cannot be learned: wasp"
    ]
    assert data.class_counts().tolist()[2] == 0 and data.class_counts("eval")[2] == 1
    assert before.items() <= split_of(data).items()


def _is_for_validation(root, number):
    return int(reading.fingerprint(image(number))) >= 2**62


def test_a_table_tells_the_split_of_each_image(tmp_path):
    write_files(tmp_path, flat())
    data = load(tmp_path, split=(80, 10, 10))
    rows = data.division.to_csv().decode().splitlines()
    assert rows[0] == "path,split,label" and len(rows) == 41
    path, split, label = rows[1].split(",")
    assert (path, label) == ("ant/000.png", "ant")
    assert named(data, tmp_path)[path] == split


def test_bad_files_are_findings(tmp_path, capsys):
    write_files(tmp_path, flat() | {"ant/notes.txt": b"Ants."})
    with pytest.raises(ValueError, match="1 of 41 files cannot be decoded"):
        load(tmp_path)
    [(path, why)] = load(tmp_path, skip_bad_images=True).findings.problems
    assert path == str(tmp_path / "ant/notes.txt") and why.startswith("Images must be")
