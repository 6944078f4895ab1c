"""Rows are whole, in order and never overwritten, wherever a process was stopped."""

import contextlib
import csv
import dataclasses
import errno
import fcntl
import io
import json
import os
import pathlib
import resource
import signal

import numpy as np
import pytest
from fake_classifier import NAMES, fake
from image_encoding import encode
from PIL import Image

from keras_preact import prediction
from keras_preact.prediction import PredictConfig, UnreadableFilesError, contact_sheet

ODD = ("a\nb.png", 'a,"b".png', "a\r.png", os.fsdecode(b"caf\xe9.png"), "ü.png")
FORMATS = ("x.csv", "x.jsonl")


@pytest.fixture
def folder(images):
    """The folder of 11 images, and of some with odd names."""
    folder = pathlib.Path(images[0]).parent
    for name in ODD:
        os.link(images[0], folder / name)
    (folder / "00 text.png").write_bytes(b"text")
    return folder


def run(source, output, digest="fake", **options):
    """Runs the program; returns the sizes of the batches computed."""
    computed = []
    config = PredictConfig(model="net", source=str(source), output=str(output), **options)
    with contextlib.suppress(UnreadableFilesError):
        prediction.run(config, classifier=fake(digest, computed))
    return computed


def read(path):
    """(file, classes, scores, error) of each row, by Python's readers."""
    if path.suffix == ".jsonl":
        values = map(json.loads, path.read_text(encoding="utf-8").splitlines())
        return [(v["file"], v["classes"], v["scores"], v["error"]) for v in values]
    [head, *rows] = csv.reader(io.StringIO(path.read_bytes().decode(), newline=""))
    pairs = [name for n in (1, 2, 3) for name in (f"class_{n}", f"score_{n}")]
    assert head == ["file", *pairs, "error"]
    return [
        (
            row[0],
            [name for name in row[1:-1:2] if name],
            [float(score) for score in row[2:-1:2] if score],
            row[-1] or None,
        )
        for row in rows
    ]


@pytest.mark.parametrize("name", FORMATS)
def test_there_is_a_row_for_each_file_in_order(folder, tmp_path, name, capsys):
    run(folder, tmp_path / name, batch_size=4)
    rows, found = read(tmp_path / name), prediction.predict(fake(), folder)
    assert len(rows) == len(found) == 17
    for row, each in zip(rows, found, strict=True):
        file = each.file
        if name == "x.csv":
            file = file.encode("utf-8", "backslashreplace").decode()
        assert (row[0], tuple(row[1]), row[3]) == (file, each.classes, each.error)
        np.testing.assert_allclose(row[2], each.scores, rtol=1e-5)
    out = capsys.readouterr().out
    assert "17 files, 1 unreadable, " in out and NAMES[2] in out


@pytest.mark.parametrize("name", FORMATS)
def test_an_output_cut_at_any_byte_is_continued_to_the_same_bytes(folder, tmp_path, name):
    path = tmp_path / name
    (folder / "00 text.png").unlink()
    for number in range(7):
        (folder / f"{number:02}.png").unlink()
    run(folder, path, batch_size=4)
    whole, record = path.read_bytes(), pathlib.Path(f"{path}.json").read_bytes()
    cuts = {*range(0, len(whole) + 1, 67), len(whole) - 1, 1}
    cuts |= {place for n, byte in enumerate(whole) if byte == 10 for place in (n, n + 1)}
    for place in sorted(cuts):
        path.write_bytes(whole[:place])
        run(folder, path, batch_size=4)
        assert path.read_bytes() == whole, place
    assert pathlib.Path(f"{path}.json").read_bytes() == record


def test_what_is_done_is_not_computed_again_and_a_complete_output_stays(folder, tmp_path, capsys):
    path = tmp_path / "x.csv"
    assert run(folder, path, batch_size=4) == [4, 4, 4, 4, 1]
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:6]))
    assert run(folder, path, batch_size=4) == [4, 4, 4, 1]
    before = path.stat().st_mtime_ns
    capsys.readouterr()
    assert run(folder, path, batch_size=4) == []
    assert path.stat().st_mtime_ns == before
    assert f"{path} has 17 of 17 rows already" in capsys.readouterr().out


@pytest.mark.parametrize("name", FORMATS)
def test_shards_give_exactly_the_rows_of_one_run(folder, tmp_path, name):
    run(folder, tmp_path / name, batch_size=4)
    parts = []
    for number in range(1, 4):
        part = tmp_path / f"{number}{name}"
        run(folder, part, batch_size=4, shard=f"{number}/3")
        parts.append(part.read_bytes())
    whole = (tmp_path / name).read_bytes()
    header = whole[: whole.index(b"\n") + 1] if name == "x.csv" else b""
    assert header + b"".join(part.removeprefix(header) for part in parts) == whole


def test_a_shard_without_files_is_an_empty_output(images, tmp_path):
    assert run(images[0], tmp_path / "x.csv", shard="1/2") == []
    assert read(tmp_path / "x.csv") == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"digest": "another"}, "holds answers of another model, 'net'"),
        ({"top_k": 2}, "was begun with top_k=3, not 2"),
        ({"shard": "1/2"}, "was begun with shard=None, not 1/2"),
    ],
)
def test_an_output_of_another_command_is_refused_and_left(folder, tmp_path, change, words):
    path = tmp_path / "x.csv"
    run(folder, path)
    whole = path.read_bytes()
    with pytest.raises(ValueError, match=f"{words}.*Nothing is overwritten"):
        run(folder, path, **change)
    assert path.read_bytes() == whole


def test_another_batch_size_may_continue_an_output(folder, tmp_path):
    path = tmp_path / "x.csv"
    run(folder, path)
    whole = path.read_bytes()
    path.write_bytes(whole[:300])
    run(folder, path, batch_size=3)
    assert path.read_bytes() == whole


def test_a_source_that_has_changed_is_refused(folder, tmp_path):
    path = tmp_path / "x.csv"
    run(folder, path)
    (folder / "00 0.png").write_bytes(b"")
    with pytest.raises(ValueError, match=r"Row 1 of .*x\.csv is of .*: the source has changed"):
        run(folder, path)
    (folder / "00 0.png").unlink()
    (folder / "ü.png").unlink()
    with pytest.raises(ValueError, match="has more rows than there are files, 16"):
        run(folder, path)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"my own table\n", "another header"),
        (None, "Row 2 of .* is damaged"),
    ],
)
def test_rows_that_are_not_ours_are_refused(folder, tmp_path, text, words):
    path = tmp_path / "x.csv"
    run(folder, path)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(text or b"".join([*lines[:2], b"a,b\n", *lines[2:]]))
    before = path.read_bytes()
    with pytest.raises(ValueError, match=words):
        run(folder, path)
    assert path.read_bytes() == before


def test_where_no_output_can_be_is_refused_before_the_model_is_read(folder, tmp_path):
    (tmp_path / "mine.csv").write_text("mine\n")
    (tmp_path / "folder.csv").mkdir()
    for name, words in (
        ("mine.csv", "holds something else"),
        ("folder.csv", "output must be a file"),
        ("none/x.csv", "in a folder that exists"),
    ):
        config = PredictConfig(
            model=str(tmp_path / "none"), source=str(folder), output=str(tmp_path / name)
        )
        with pytest.raises(ValueError, match=words):
            prediction.run(config)
    assert (tmp_path / "mine.csv").read_text() == "mine\n"
    (tmp_path / "new.csv").touch()
    run(folder, tmp_path / "new.csv")


def test_an_output_in_use_is_refused(folder, tmp_path):
    path = tmp_path / "x.csv"
    run(folder, path)
    with path.open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(ValueError, match="is in use by another process"):
            run(folder, path)


def test_a_record_that_is_damaged_is_named(folder, tmp_path):
    run(folder, tmp_path / "x.csv")
    (tmp_path / "x.csv.json").write_text("[]")
    with pytest.raises(ValueError, match=r"x\.csv\.json is not the record of predictions"):
        run(folder, tmp_path / "x.csv")


def test_a_full_disk_leaves_whole_rows_and_is_continued(folder, tmp_path):
    path = tmp_path / "x.csv"
    run(folder, tmp_path / "expected.csv", batch_size=2)
    whole = (tmp_path / "expected.csv").read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (700, limits[1]))
        with pytest.raises(OSError) as full:
            run(folder, path, batch_size=2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)
    assert full.value.errno == errno.EFBIG and full.value.filename == str(path)
    written = path.read_bytes()
    assert 0 < len(written) <= 700 and whole.startswith(written)
    assert written.endswith(b"\n")
    run(folder, path, batch_size=2)
    assert path.read_bytes() == whole


def test_an_interrupt_leaves_whole_rows(folder, tmp_path):
    path, classifier = tmp_path / "x.csv", fake()
    config = PredictConfig(model="net", source=str(folder), output=str(path), batch_size=4)
    calls = []

    def interrupted(images):
        calls.append(images)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return classifier.probabilities(images)

    with pytest.raises(KeyboardInterrupt):
        stopped = dataclasses.replace(classifier, probabilities=interrupted)
        prediction.run(config, classifier=stopped)
    assert len(read(path)) == 8


def test_without_an_output_lines_are_printed_as_they_come(folder, capsys):
    config = PredictConfig(model="net", top_k=2)
    names = sorted(map(str, folder.iterdir()))
    with pytest.raises(UnreadableFilesError, match=r"^1 of 17 files could not be read as imag"):
        prediction.run(config, names, fake())
    lines = capsys.readouterr().out.splitlines()
    for line, each in zip(lines, prediction.predict(fake(), names), strict=True):
        assert line.isprintable() or "ü" in line
        _, _, answer = line.partition(".png: ")
        if each.error:
            assert answer == f"unreadable: {each.error}"
        else:
            assert answer == ", ".join(
                f"{n} {s:.1%}" for n, s in zip(each.classes[:2], each.scores[:2], strict=True)
            )


def test_either_a_source_or_images_must_be_given(images):
    for options, words in (({}, ()), ({"source": images[0]}, images)):
        with pytest.raises(ValueError, match="Either source must be given, or image files"):
            prediction.run(PredictConfig(model="net", **options), words, fake())


@pytest.mark.parametrize("count", [1, 9, 50])
def test_a_contact_sheet_shows_some_images_and_marks_unreadable_ones(tmp_path, count):
    (tmp_path / "images").mkdir()
    for number in range(count):
        data = encode(np.full((9, 8, 3), 4 * number, np.uint8)) if number != 1 else b"text"
        (tmp_path / "images" / f"$x^{number:02}.png").write_bytes(data)
    sheet, output = tmp_path / "sheet.png", tmp_path / "x.csv"
    run(tmp_path / "images", output, contact_sheet=str(sheet))
    shown = min(count, contact_sheet.MOST_IMAGES)
    assert Image.open(sheet).size == contact_sheet.size_pixels(shown)
    first = sheet.read_bytes()
    sheet.unlink()
    # All rows are there: the sheet is drawn from them.
    run(tmp_path / "images", output, contact_sheet=str(sheet))
    assert sheet.read_bytes() == first


def test_a_contact_sheet_replaces_no_other_file(folder, tmp_path):
    sheet = tmp_path / "sheet.png"
    sheet.write_bytes(encode(np.zeros((9, 8, 3), np.uint8)))
    before = sheet.read_bytes()
    with pytest.raises(ValueError, match="contact_sheet must be new, or an earlier sheet"):
        run(folder, tmp_path / "x.csv", contact_sheet=str(sheet))
    assert sheet.read_bytes() == before
    with pytest.raises(ValueError, match="in a folder that exists"):
        run(folder, tmp_path / "x.csv", contact_sheet=str(tmp_path / "none" / "sheet.png"))
    assert not (tmp_path / "x.csv").exists()
