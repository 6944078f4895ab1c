"""The report of a data set, against independent counts."""

import csv
import json

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from keras_preact.data import load
from keras_preact.data.summary import one_line
from keras_preact.inspection import InspectionConfig, headers, inspect, page, samples

UNREADABLE = {"train/bee/damaged.jpg", "val/ant/<b>.png"}


def files_of(folder):
    """(path below the folder, split, class) of every readable file."""
    found = []
    for path in sorted(folder.glob("*/*/*")):
        name = path.relative_to(folder).as_posix()
        if name not in UNREADABLE:
            found.append((name, {"train": "train", "val": "eval"}[path.parts[-3]], path.parts[-2]))
    return found


def test_counts_are_those_of_the_folder(folder, report):
    found, files = json.loads(json.dumps(report.to_json())), files_of(folder)
    assert [each["name"] for each in found["classes"]] == ["ant", "bee"]
    for each in found["classes"]:
        for split in ("train", "eval"):
            expected = sum(file[1:] == (split, each["name"]) for file in files)
            assert each[split] == expected
    assert found["images"] == {"train": 27, "eval": 6}
    assert found["imbalance"] == 24 / 3
    assert (found["dataset"], found["source"]) == ("folder", str(folder))
    assert found["augmentation"] == "random_resized_crop"


def test_sizes_kinds_and_channels_are_those_that_pillow_reads(folder, report):
    images = [Image.open(folder / name) for name, *_ in files_of(folder)]
    sizes = report.sizes
    assert sorted(zip(sizes.widths, sizes.heights, strict=True)) == sorted(i.size for i in images)
    kinds = [image.format for image in images]
    assert sizes.kinds == {kind: kinds.count(kind) for kind in set(kinds)}
    modes = ["grey" if image.mode == "L" else "colour" for image in images]
    assert sizes.channels == {mode: modes.count(mode) for mode in set(modes)}
    found = report.to_json()["sizes"]
    widths = sorted(image.width for image in images)
    assert (found["width"]["least"], found["width"]["most"]) == (widths[0], widths[-1])
    assert found["width"]["median"] == widths[(len(widths) - 1) // 2]
    assert found["measured"] == found["total"] == len(images)


def test_copies_and_damage_are_found_with_their_splits_and_labels(report):
    found = report.to_json()
    assert {each["file"] for each in found["unreadable"]} == UNREADABLE
    assert {each["reason"] for each in found["unreadable"]} >= {"empty file"}
    groups = {
        tuple(image["file"] for image in group["images"]): group for group in found["duplicates"]
    }
    assert set(groups) == {
        ("train/ant/0.png", "val/ant/copy.png"),
        ("train/ant/1.jpg", "train/bee/copy.jpg"),
    }
    across, differ = groups.values()
    assert (across["across_splits"], across["labels_differ"]) == (True, False)
    assert (differ["across_splits"], differ["labels_differ"]) == (False, True)
    assert across["images"][1] == {
        "file": "val/ant/copy.png",
        "split": "eval",
        "classes": ["ant"],
    }


def test_suggestions_name_what_stands_out(report):
    text = "\n".join(report.suggestions)
    for words in (
        "1 image is in more than one split: the evaluation counts what training has seen",
        "train/ant/0.png = val/ant/copy.png",
        "with copies of another label",
        "2 files cannot be read as images",
        "Fewer than 20 training images of bee",
        "With 6 validation images, one image is 16.7%",
        "--init_from",
    ):
        assert words in text
    assert "--image_size" not in text


def test_small_images_and_unequal_classes_have_their_suggestions(folder, tmp_path):
    for path in (folder / "train/ant").iterdir():
        for split in ("train", "val"):
            (tmp_path / split / "ant").mkdir(parents=True, exist_ok=True)
            (tmp_path / split / "ant" / path.name).write_bytes(path.read_bytes())
    for split in ("train", "val"):
        (tmp_path / split / "bee").mkdir()
        (tmp_path / split / "bee" / "0.jpg").write_bytes((folder / "val/bee/1.jpg").read_bytes())
    text = "\n".join(inspect(InspectionConfig("folder", str(tmp_path))).suggestions)
    assert "24 times the training images of the smallest" in text
    assert "--class_weights=auto or --sampling=sqrt" in text
    assert "is enlarged to 224: --image_size=" in text
    assert "25 images are in more than one split" in text


def test_frequencies_are_those_of_the_samplings(report):
    shares = report.frequencies
    np.testing.assert_allclose(shares["natural"], [24 / 27, 3 / 27])
    np.testing.assert_allclose(shares["balanced"], [0.5, 0.5])
    roots = np.sqrt([24, 3])
    np.testing.assert_allclose(shares["sqrt"], roots / roots.sum(), atol=1e-6)


def test_sheets_show_the_images_that_training_computes(folder, report):
    data = load("folder", data_dir=str(folder), image_size=32, skip_bad_images=True)
    # A training of the same seed, in batches of another size.
    stream = data.train(9, seed=3).take(3).as_numpy_iterator()
    images, labels = map(np.concatenate, zip(*stream, strict=True))
    assert [sheet.label for sheet in report.sheets] == [0, 1]
    for sheet in report.sheets:
        of_class = images[labels == sheet.label][: samples.MOST_IMAGES]
        assert sheet.images == len(of_class)
        drawn = tf.io.decode_png(sheet.png).numpy()
        step = samples.SIDE_PIXELS + samples.GAP_PIXELS
        for place, image in enumerate(of_class):
            shown = drawn[step:, place * step :][: samples.SIDE_PIXELS, : samples.SIDE_PIXELS]
            # 32 pixels become 96: each thrice.
            np.testing.assert_array_equal(shown[1::3, 1::3], image)


def test_many_classes_have_few_and_small_sheets():
    classes = 1000
    images = np.zeros((3 * classes, 4, 4, 1), np.uint8)
    labels = np.arange(len(images), dtype=np.int32) % classes
    digits = load("digits")
    source = type(digits.train_source)(images, labels)
    info = digits.info.__class__(
        "many", tuple(map(str, range(classes))), (4, 4, 1), 3000, 3000, (0.0,), (1.0,), 1.0
    )
    data = type(digits)(info, source, source, "none")
    sheets = samples.of_classes(data, labels, "none", 0)
    assert len(sheets) == samples.MOST_CLASSES
    assert {sheet.images for sheet in sheets} == {3}


def test_several_labels_are_counted_each_and_by_image(labelled):
    with labelled.open() as file:
        rows = list(csv.DictReader(file))
    found = inspect(InspectionConfig("csv", str(labelled), image_size=16)).to_json()
    assert found["multi_label"]
    for each in found["classes"]:
        for split, name in (("train", "train"), ("eval", "val")):
            of_split = [row["label"].split("|") for row in rows if row["split"] == name]
            assert each[split] == sum(each["name"] in labels for labels in of_split)
    numbers = [
        len([n for n in row["label"].split("|") if n]) for row in rows if row["split"] == "train"
    ]
    assert found["labels_per_image"]["train"] == {
        str(number): numbers.count(number) for number in sorted(set(numbers))
    }


def test_images_in_memory_are_compared():
    report = inspect(InspectionConfig("digits"))
    assert report.duplicates == []
    assert report.to_json()["sizes"]["width"] == dict.fromkeys(
        ("least", "p5", "median", "p95", "most"), 8
    )
    assert "8x8 pixels" in report.line


def test_the_line_says_counts_classes_sizes_and_copies(folder, report):
    assert one_line(report.dataset) == report.line
    assert report.line == (
        "Data: 27 training, 6 validation images of 2 classes (3 to 24 each for training), "
        f"{_extremes(folder)} pixels; 1 image in more than one split"
    )


def _extremes(folder):
    sizes = [
        Image.open(folder / name).size for name, split, _ in files_of(folder) if split == "train"
    ]
    areas = [width * height for width, height in sizes]
    least, most = sizes[int(np.argmin(areas))], sizes[int(np.argmax(areas))]
    return f"{least[0]}x{least[1]} to {most[0]}x{most[1]}"


def test_the_console_shows_counts_and_suggestions(report):
    text = page.console(report)
    assert text.startswith(report.line)
    assert "  ant: 24, 4" in text
    for suggestion in report.suggestions:
        assert f"- {suggestion}" in text


@pytest.mark.parametrize(
    ("kind", "mode", "channels"),
    [
        ("JPEG", "L", "grey"),
        ("JPEG", "RGB", "colour"),
        ("JPEG", "CMYK", "CMYK"),
        ("PNG", "1", "grey"),
        ("PNG", "L", "grey"),
        ("PNG", "LA", "grey, alpha"),
        ("PNG", "P", "palette"),
        ("PNG", "RGB", "colour"),
        ("PNG", "RGBA", "colour, alpha"),
        ("GIF", "P", "palette"),
        ("BMP", "RGB", "colour"),
        ("BMP", "L", "palette"),
    ],
)
def test_headers_are_read_without_decoding(kind, mode, channels, tmp_path):
    Image.new(mode, (7, 5)).save(tmp_path / "image", kind)
    assert headers.read((tmp_path / "image").read_bytes()) == (kind, 7, 5, channels, False)


def test_turned_photographs_are_measured_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (30, 20)).save(tmp_path / "turned.jpg", exif=exif)
    header = headers.read((tmp_path / "turned.jpg").read_bytes())
    assert (header.width, header.height, header.turned) == (20, 30, True)


def test_what_is_no_image_has_no_header():
    for file in (b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"BM", b"text"):
        assert headers.read(file) is None
