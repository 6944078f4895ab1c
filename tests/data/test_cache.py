"""What a start remembers for the next, and when it must not be believed."""

import os
import shutil
import time

import numpy as np
import pytest
import tensorflow as tf
from sample_data import (
    encode,
    image_features,
    prepare_tfds,
    small_examples,
    smooth_image,
    write_files,
)

from keras_preact.data import cache, checked, datasets, folder, reading, tfds_source
from keras_preact.data.cache import Cache, Contents
from keras_preact.data.sources import Encoded
from keras_preact.layers import Preprocessing

pytestmark = pytest.mark.usefixtures("no_network")

HOUR = 3600


def photo(number, file_format="JPEG"):
    return encode(smooth_image(40 + number, 60, seed=number), file_format)


def age(root):
    """Makes all files an hour older: as old as files are that a cache trusts."""
    for path in root.rglob("*"):
        status = path.stat()
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns - HOUR * 10**9))


@pytest.fixture
def photos(tmp_path):
    root = tmp_path / "photos"
    for place, name in enumerate(("train/ant", "train/bee", "val/ant", "val/bee")):
        write_files(root, {f"{name}/{n}.jpg": photo(10 * place + n) for n in range(3)})
    age(root)
    return root


@pytest.fixture
def prepared(tmp_path):
    root = tmp_path / "prepared"
    splits = {"train": small_examples(20), "test": small_examples(6, 1)}
    prepare_tfds(root, "small", splits, image_features((6, 8, 3)))
    prepare_tfds(root, "free", splits, image_features((None, None, 3)))
    age(root)
    return root


@pytest.fixture
def decoded(monkeypatch):
    """The names of the files that are decoded to be checked."""
    names = []

    def counting(paths, covered):
        names.extend(map(os.path.basename, paths))
        return reading.decodable(paths, covered)

    monkeypatch.setattr(checked, "decodable", counting)
    return names


def load(root, **options):
    return datasets.load("folder", data_dir=str(root), **{"image_size": 16, **options})


def only_cache(root):
    [path] = root.rglob(".keras_preact-*.cache")
    return path


def test_a_second_start_decodes_nothing_and_finds_the_same(photos, decoded, monkeypatch):
    first = load(photos)
    assert len(decoded) == 12
    decoded.clear()
    monkeypatch.setattr(Encoded, "eval_images", None)  # mean and deviation are remembered too
    second = load(photos)
    assert decoded == []
    assert second.info == first.info and second.digests() == first.digests()


def test_only_new_changed_and_renamed_files_are_decoded_again(photos, decoded):
    load(photos)
    decoded.clear()
    os.utime(photos / "train/ant/0.jpg", (1e9, 1e9))
    (photos / "train/bee/1.jpg").write_bytes(photo(99))
    (photos / "val/ant/2.jpg").rename(photos / "val/ant/renamed.jpg")
    (photos / "val/bee/0.jpg").unlink()
    shutil.copy2(photos / "val/bee/1.jpg", photos / "val/bee/new.jpg")
    age(photos / "train/bee")
    data = load(photos)
    # Those of train/bee have another age, and so are others by their stat.
    assert sorted(decoded) == sorted(["0.jpg", "0.jpg", "1.jpg", "2.jpg", "renamed.jpg", "new.jpg"])
    assert data.info.train_count == data.info.eval_count == 6
    decoded.clear()
    load(photos)
    assert decoded == []


def test_another_file_of_the_training_images_has_its_own_mean(photos):
    before = load(photos).info.mean
    (photos / "train/bee/1.jpg").write_bytes(photo(99))
    age(photos / "train/bee")
    after = load(photos).info.mean
    assert after != before
    only_cache(photos).unlink()
    assert load(photos).info.mean == after


def test_a_file_changed_just_now_is_not_believed(photos, decoded):
    (photos / "train/ant/0.jpg").write_bytes(photo(99))
    load(photos)
    decoded.clear()
    # Another content of the same size, within the same tick of the clock.
    status = (photos / "train/ant/0.jpg").stat()
    (photos / "train/ant/0.jpg").write_bytes(b"x" * status.st_size)
    os.utime(photos / "train/ant/0.jpg", ns=(status.st_atime_ns, status.st_mtime_ns))
    with pytest.raises(ValueError, match=r"1 of 12 files(?s:.*)train/ant/0\.jpg: Images must be"):
        load(photos)
    assert decoded == ["0.jpg"]


def test_bad_files_are_remembered_with_their_reasons(photos, decoded, capsys):
    bad = {"train/ant/a.jpg": b"", "train/bee/b.jpg": photo(1)[:-300], "val/ant/c.txt": b"text"}
    write_files(photos, bad)
    age(photos / "train")
    age(photos / "val")
    errors = []
    for _ in range(2):
        with pytest.raises(ValueError) as error:
            load(photos)
        errors.append(str(error.value))
    assert errors[0] == errors[1] and errors[0].startswith("3 of 15 files cannot be decoded")
    assert len(decoded) == 15
    printed = []
    for _ in range(2):
        assert load(photos, skip_bad_images=True).info.train_count == 6
        printed.append(capsys.readouterr().out)
    assert printed[0] == printed[1] and "Left out 3 of 15" in printed[0]
    assert len(decoded) == 15
    (photos / "train/bee/b.jpg").write_bytes(photo(1))
    with pytest.raises(ValueError, match="2 of 15 files"):
        load(photos)


def test_a_reason_that_lies_outside_the_file_is_not_remembered(photos):
    link = photos / "val" / "ant" / "link.jpg"
    link.symlink_to(photos / "gone.jpg")
    with pytest.raises(ValueError, match="1 of 13 files"):
        load(photos)
    write_files(photos, {"gone.jpg": photo(5)})
    assert load(photos).info.eval_count == 7


def test_what_an_interrupted_check_has_found_is_kept(photos, decoded, monkeypatch):
    write_files(photos, {f"val/bee/{n}.jpg": photo(n % 7) for n in range(3, 90)})
    age(photos / "val")
    counting = checked.decodable

    def interrupted(paths, covered):
        yield next(counting(paths, covered))
        raise KeyboardInterrupt

    monkeypatch.setattr(checked, "decodable", interrupted)
    with pytest.raises(KeyboardInterrupt):
        load(photos)
    assert len(decoded) == 99
    decoded.clear()
    monkeypatch.setattr(checked, "decodable", counting)
    load(photos)
    assert 0 < len(decoded) < 99 - 60


def test_each_image_size_has_a_cache_of_its_own(photos, decoded):
    load(photos)
    load(photos, image_size=32)
    assert len(decoded) == 24
    small, large = sorted(photos.glob(".keras_preact-*.cache"))
    small.replace(large)
    load(photos, image_size=32)
    assert len(decoded) == 36


def test_a_cache_moves_with_its_folder(photos, decoded, tmp_path):
    load(photos)
    shutil.copytree(photos, tmp_path / "elsewhere")
    decoded.clear()
    load(tmp_path / "elsewhere")
    assert decoded == []


@pytest.mark.parametrize("way", ["read-only", "occupied"])
def test_a_folder_that_takes_no_file_is_remembered_in_the_users_cache_folder(
    photos, decoded, cache_folder, monkeypatch, way
):
    refuse_writing_below(monkeypatch, photos)
    before = set(cache_folder.rglob("*.cache"))
    load(photos)
    [path] = set(cache_folder.rglob("*.cache")) - before
    assert path.parent == cache_folder / "keras_preact" and not list(photos.glob(".keras*"))
    decoded.clear()
    load(photos)
    assert decoded == []


def refuse_writing_below(monkeypatch, *folders):
    """Makes folders read-only, for root too."""
    write = cache.files.write_whole

    def refusing(path, data, **options):
        if any(os.fspath(path).startswith(os.fspath(folder)) for folder in folders):
            raise PermissionError(13, "Permission denied", str(path))
        write(path, data, **options)

    monkeypatch.setattr(cache.files, "write_whole", refusing)


def test_nowhere_to_write_means_no_cache_and_no_error(photos, decoded, cache_folder, monkeypatch):
    refuse_writing_below(monkeypatch, photos, cache_folder)
    assert load(photos).info == load(photos).info
    assert len(decoded) == 24


def test_a_bucket_has_no_cache():
    some = Cache("gs://bucket/folder", "some")
    assert some.places == [] and some.read() is None
    assert some.write(Contents({}, {})) is None


def test_a_relative_cache_home_is_ignored(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setenv("HOME", "/home/someone")
    assert str(Cache(tmp_path, "some").places[1]).startswith("/home/someone/.cache/keras_preact/")


ARRAYS = {"bytes": np.arange(5, dtype=np.uint8), "table": np.ones((2, 3), np.int64)}


def kept(tmp_path, **key):
    return Cache(tmp_path, "some", key)


def test_contents_come_back_as_they_were(tmp_path):
    arrays = ARRAYS | {"none": np.empty((0, 4), np.int32)}
    kept(tmp_path).write(Contents({"mean": [0.1, 2.0]}, arrays))
    found = kept(tmp_path).read()
    assert found.facts == {"mean": [0.1, 2.0]} and found.arrays.keys() == arrays.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(found.arrays[name], array)
        assert found.arrays[name].dtype == array.dtype
    assert [path.name for path in tmp_path.iterdir()] == [".keras_preact-some.cache"]


def test_a_cache_of_another_key_or_version_counts_as_none(tmp_path, monkeypatch):
    kept(tmp_path, size=1).write(Contents({}, ARRAYS))
    assert kept(tmp_path, size=1).read() and kept(tmp_path, size=2).read() is None
    monkeypatch.setattr(cache, "__version__", "0.0.1")
    assert kept(tmp_path, size=1).read() is None


def test_a_cache_cut_off_or_changed_anywhere_counts_as_none(tmp_path):
    path = kept(tmp_path).write(Contents({"fact": "some"}, ARRAYS))
    whole = path.read_bytes()
    for end in range(len(whole)):
        path.write_bytes(whole[:end])
        assert kept(tmp_path).read() is None
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        assert kept(tmp_path).read() is None
    path.write_bytes(whole + b"more")
    assert kept(tmp_path).read() is None
    path.write_bytes(whole)
    assert kept(tmp_path).read()


def sealed(header, body=b""):
    line = header if isinstance(header, bytes) else cache.json.dumps(header).encode() + b"\n"
    return line + body + cache._checksum([line, body])


def header(some, **changes):
    parts = {"what": cache._WHAT, "key": some._key, "facts": {}, "arrays": {}}
    return parts | changes


HOSTILE = {
    "no JSON": lambda some: sealed(b"\x80\x04pickle\n"),
    "deep": lambda some: sealed(b"[" * 100_000 + b"\n"),
    "a list": lambda some: sealed([]),
    "objects": lambda some: sealed(header(some, arrays={"a": ["object", [1]]}), b"x" * 8),
    "endless": lambda some: sealed(header(some, arrays={"a": ["int64", [2**39, 2**39]]})),
    "negative": lambda some: sealed(header(some, arrays={"a": ["uint8", [-1, -1]]}), b"x"),
    "a text as shape": lambda some: sealed(header(some, arrays={"a": ["uint8", "1"]}), b"x"),
    "more fields": lambda some: sealed(header(some, more=1)),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_cache_made_by_hand_counts_as_none(tmp_path, name):
    some = kept(tmp_path)
    some.places[0].write_bytes(HOSTILE[name](some))
    assert some.read() is None


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: os.symlink("/dev/zero", path)])
def test_something_else_under_the_name_of_a_cache_is_not_opened(photos, decoded, make):
    make(photos / ".keras_preact-folder-16.cache")
    load(photos)
    assert len(decoded) == 12


def rows(**changes):
    names = ["train/ant/0.jpg", "val/ant/1.jpg"]
    good = {
        "names": cache.join(names),
        "sizes": np.array([5, 5]),
        "modified": np.array([5, 5]),
        "fingerprints": np.array([1, 2]),
        "bad": np.array([1]),
        "problems": cache.join(["damaged"]),
    }
    return Contents({"moments": None}, good | changes)


SENSELESS = {
    "an index of no file": rows(bad=np.array([7])),
    "fewer names": rows(names=cache.join(["one"])),
    "an escape": rows(problems=cache.join(["\x1b[2J"])),
    "fewer fingerprints": rows(fingerprints=np.array([1])),
    "other numbers": rows(sizes=np.array([5, 5], np.int32)),
    "a table": rows(modified=np.ones((2, 2), np.int64)),
    "nothing": Contents({}, {}),
    "no numbers as mean": Contents({"moments": ["", [float("nan")] * 3, [1.0] * 3]}, rows().arrays),
    "two channels": Contents({"moments": ["", [1.0] * 2, [1.0] * 2]}, rows().arrays),
}


@pytest.mark.parametrize("name", SENSELESS)
def test_a_senseless_record_of_a_folder_is_replaced(photos, decoded, name):
    listing = folder.list_files([photos / "train" / "ant"], "")
    some = checked.CheckedFiles(photos, listing, 16)._cache
    some.write(SENSELESS[name])
    first = load(photos)
    assert len(decoded) == 12
    assert load(photos).info == first.info
    assert len(decoded) == 12


def test_processes_that_write_at_once_leave_a_whole_cache(tmp_path):
    from concurrent.futures import ThreadPoolExecutor

    tables = [np.full(200_000, number, np.int64) for number in range(8)]

    def work(table):
        for _ in range(5):
            kept(tmp_path).write(Contents({}, {"table": table}))
            found = kept(tmp_path).read().arrays["table"]
            assert len(found) == len(table) and len(np.unique(found)) == 1

    with ThreadPoolExecutor() as pool:
        list(pool.map(work, tables))
    assert [path.name for path in tmp_path.iterdir()] == [".keras_preact-some.cache"]


def test_what_a_killed_process_has_left_is_removed_the_next_day(tmp_path):
    path = tmp_path / "..keras_preact-some.cache.abc.tmp"
    path.touch()
    kept(tmp_path).write(Contents({}, {}))
    assert path.exists()
    os.utime(path, (time.time() - 25 * HOUR,) * 2)
    kept(tmp_path).write(Contents({}, {}))
    assert not path.exists()


def test_decoded_images_of_a_prepared_set_are_remembered(prepared, monkeypatch):
    first = datasets.load("small", data_dir=str(prepared))
    monkeypatch.setattr(tfds_source, "_builder", None)
    second = datasets.load("small", data_dir=str(prepared))
    assert second.info == first.info
    for split in ("train_source", "eval_source"):
        np.testing.assert_array_equal(getattr(second, split).images, getattr(first, split).images)
        np.testing.assert_array_equal(getattr(second, split).labels, getattr(first, split).labels)


def test_a_prepared_set_whose_files_have_changed_is_read_again(prepared):
    first = datasets.load("small", data_dir=str(prepared))
    shutil.rmtree(prepared / "small" / "1.0.0")
    splits = {"train": small_examples(20, 5), "test": small_examples(6, 6)}
    prepare_tfds(prepared, "small", splits, image_features((6, 8, 3)))
    assert datasets.load("small", data_dir=str(prepared)).info.mean != first.info.mean


def test_mean_and_deviation_of_records_are_remembered(prepared, monkeypatch):
    first = datasets.load("free", data_dir=str(prepared), image_size=8).info
    monkeypatch.setattr(Encoded, "eval_images", None)
    assert datasets.load("free", data_dir=str(prepared), image_size=8).info == first


def test_recorded_mean_and_deviation_are_not_measured_again(photos, monkeypatch):
    monkeypatch.setattr(Encoded, "eval_images", None)
    info = load(photos, like=Preprocessing((1, 1, 3), (1.0, 2.0, 3.0), (4.0, 5.0, 6.0))).info
    assert (info.mean, info.std) == ((1.0, 2.0, 3.0), (4.0, 5.0, 6.0))


def test_labels_of_no_class_in_a_cache_are_not_believed(prepared):
    datasets.load("small", data_dir=str(prepared))
    some = tfds_source._kept_in_memory("small", str(prepared))._cache
    contents = some.read()
    wrong = np.full_like(contents.arrays["train_labels"], 99)
    some.write(Contents(contents.facts, {**contents.arrays, "train_labels": wrong}))
    data = datasets.load("small", data_dir=str(prepared))
    assert tf.reduce_max(data.train_source.labels) == 1
