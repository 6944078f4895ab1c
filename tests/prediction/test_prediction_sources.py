"""Image files are found in a folder, in a list, or one by one, in the same order everywhere."""

import os

import pytest

from keras_preact.prediction import PredictConfig, sources


def write(path, text=""):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_a_folder_is_taken_with_those_below_by_name_without_hidden_files(tmp_path):
    for name in ("b.jpg", "a/2.PNG", "a/10.gif", "a/c/1.bmp", "a.jpeg", "Z.jpg"):
        write(tmp_path / name)
    for name in (".hidden.jpg", ".git/1.jpg", "notes.md", "a/list.txt", "jpg"):
        write(tmp_path / name)
    os.symlink(tmp_path / "a", tmp_path / "y")
    os.symlink(tmp_path, tmp_path / "a" / "back")
    os.symlink("nothing", tmp_path / "z.jpg")
    files = sources.find(tmp_path)
    below = ["a/10.gif", "a/2.PNG", "a/c/1.bmp"]
    expected = ["Z.jpg", *below, "a.jpeg", "b.jpg", *(f"y/{n[2:]}" for n in below), "z.jpg"]
    expected = [str(tmp_path / name) for name in expected]
    assert files.names == expected
    assert [files.path(index) for index in range(len(files))] == expected
    assert files.skipped == 4  # two of them twice, through the link


def test_a_list_is_taken_as_it_stands(tmp_path):
    names = ["b.png", "/x/y.jpg", "b.png", " a,b.jpg ", "#c.jpg", "gs://bucket/d.jpg"]
    (tmp_path / "list.TXT").write_bytes(
        b"\xef\xbb\xbf" + "\r\n".join(names).encode() + b"\n\ncaf\xe9.png"
    )
    write(tmp_path / "b.png")
    files = sources.find(tmp_path / "list.TXT")
    assert files.names == [*names, os.fsdecode(b"caf\xe9.png")]
    assert files.path(0) == str(tmp_path / "b.png")
    assert files.path(1) == "/x/y.jpg"


def test_a_list_may_be_relative_to_the_current_folder(tmp_path, monkeypatch):
    write(tmp_path / "photos" / "a.png")
    write(tmp_path / "lists" / "list.txt", "/none.png\nphotos/a.png\nphotos/b.png\n")
    monkeypatch.chdir(tmp_path)
    files = sources.find("lists/list.txt")
    assert [files.path(index) for index in range(3)] == files.names
    write(tmp_path / "lists" / "photos" / "a.png")
    files = sources.find("lists/list.txt")
    assert files.path(2) == "lists/photos/b.png"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("none.jpg", "no such file"),
        ("empty", "with no file .jpg, "),
        ("empty.txt", "an empty list"),
        ("s3://bucket/a", "s3"),
    ],
)
def test_a_source_without_images_is_refused(tmp_path, monkeypatch, name, words):
    (tmp_path / "empty").mkdir()
    write(tmp_path / "empty.txt", "\n\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=rf"source must be an image file.*{name}.*{words}"):
        sources.find(name)


def test_one_file_is_an_image_whatever_its_name_and_a_folder_is_none(tmp_path):
    write(tmp_path / "IMAGE")
    assert sources.find(tmp_path / "IMAGE").names == [str(tmp_path / "IMAGE")]
    with pytest.raises(ValueError, match="give a folder as source"):
        sources.named([tmp_path / "IMAGE", tmp_path])


@pytest.mark.parametrize("count", [0, 1, 5, 1000])
@pytest.mark.parametrize("shards", [1, 3, 7])
def test_shards_are_consecutive_parts_of_nearly_one_size_that_make_the_list(count, shards):
    parts = [
        PredictConfig(model="m", shard=f"{number}/{shards}").part(count)
        for number in range(1, shards + 1)
    ]
    assert [index for part in parts for index in part] == list(range(count))
    sizes = [len(part) for part in parts]
    assert max(sizes) - min(sizes) <= 1
    assert PredictConfig(model="m").part(count) == range(count)


@pytest.mark.parametrize("shard", ["0/4", "5/4", "1", "a/b", "1/0", "-1/4", "1/4/4", " 1/4"])
def test_what_is_no_shard_is_refused(shard):
    with pytest.raises(ValueError, match="shard must be i/n"):
        PredictConfig(model="m", shard=shard)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "model must be given"),
        ({"output": "x.txt"}, r"output must be a file \.csv or \.jsonl"),
        ({"output": "gs://bucket/x.csv"}, "on this machine"),
        ({"contact_sheet": "x.jpg"}, r"contact_sheet must be a file \.png"),
        ({"top_k": 0}, "top_k must be at least 1"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"checkpoint": "last"}, "newest, best"),
    ],
)
def test_flags_outside_their_rules_are_refused(options, words):
    model = {"model": "net.keras"} if options else {}
    with pytest.raises(ValueError, match=words):
        PredictConfig(**model, **options)
