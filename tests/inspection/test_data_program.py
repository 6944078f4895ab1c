"""The program data: what it takes, writes and refuses."""

import dataclasses
import json
import shutil

import numpy as np
import pytest

from keras_preact import inspection
from keras_preact.data import Dataset, DatasetInfo
from keras_preact.data.sources import InMemory
from keras_preact.inspection import InspectionConfig, figures, page
from keras_preact.programs import data
from keras_preact.support.plotting import COLORS


def test_a_source_is_a_name_a_folder_or_a_csv_file(tmp_path):
    config = InspectionConfig(seed=2)
    for word, found in (
        ("digits", ("digits", None)),
        ("cifar10", ("cifar10", None)),
        (str(tmp_path), ("folder", str(tmp_path))),
        ("./missing", ("folder", "./missing")),
        ("gs://bucket/photos", ("folder", "gs://bucket/photos")),
        ("tables/labels.csv", ("csv", "tables/labels.csv")),
    ):
        of_source = config.of_source([word])
        assert (of_source.dataset, of_source.data_dir, of_source.seed) == (*found, 2)
    named = InspectionConfig("cifar10", "/data")
    assert named.of_source([]) is named


@pytest.mark.parametrize(
    ("values", "words", "message"),
    [
        ({}, [], "A source must be given: a folder of images, a CSV file, or the name"),
        ({}, ["a", "b"], "One source may be given. Received: a b"),
        ({"dataset": "digits"}, ["synthetic"], "Either a source must be given, or --dataset"),
        ({"data_dir": "/data"}, ["./photos"], "data_dir is for data sets with a name"),
        ({}, ["digit"], "Did you mean 'digits'"),
        ({}, ["./missing"], "no such file or folder"),
        ({"augmentation": "random_resized_crop"}, ["digits"], "augmentation of digits"),
        ({"split": (80, 20)}, ["digits"], "split is for folder and csv alone"),
    ],
)
def test_what_cannot_be_looked_at_is_refused_and_nothing_is_written(
    values, words, message, tmp_path
):
    config = InspectionConfig(output=str(tmp_path / "report"), **values)
    with pytest.raises(ValueError) as error:
        inspection.run(config, words)
    assert message in str(error.value)
    assert not (tmp_path / "report").exists()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"augmentation": "trivial"}, "Did you mean 'trivial_augment'"),
        ({"split": (50, 20)}, "100 together"),
        ({"sampling": "even"}, "sampling must be one of natural, balanced, sqrt"),
        ({"seed": -1}, "seed must be at least 0"),
        ({"image_size": 0}, "image_size must be at least 1"),
    ],
)
def test_flags_are_checked_before_any_work(values, message):
    with pytest.raises(ValueError) as error:
        InspectionConfig("digits", **values)
    assert message in str(error.value)


def test_the_program_writes_a_report_and_replaces_only_its_own(tmp_path, capsys):
    output = tmp_path / "report"
    given = {"source": ("synthetic",), "image_size": 8, "output": str(output), "seed": 1}
    data.main(dict(given))
    printed = capsys.readouterr().out
    assert printed.startswith("Data: 1,024 training, 256 validation images of 10 classes (")
    assert printed.endswith(f"Report: {output / 'report.html'}\n")
    found = json.loads((output / "report.json").read_text())
    assert found["images"] == {"train": 1024, "eval": 256}
    with pytest.raises(ValueError, match=r"holds a report already\. Give --overwrite"):
        data.main(dict(given))
    data.main({**given, "overwrite": True, "augmentation": "random_erasing=0.3"})
    found = json.loads((output / "report.json").read_text())
    assert found["augmentation"] == "none,random_erasing=0.3"
    (output / "mine.txt").write_text("not ours")
    with pytest.raises(ValueError, match=r"holds something else: mine\.txt"):
        data.main({**given, "overwrite": True})
    assert (output / "mine.txt").read_text() == "not ours"


def many_classes(count):
    """A report of so many classes of unequal frequency."""
    labels = np.repeat(np.arange(count), 1 + np.arange(count) % 40).astype(np.int32)
    source = InMemory(np.zeros((len(labels), 2, 2, 3), np.uint8), labels)
    names = tuple(f"class number {label} of a long name" for label in range(count))
    info = DatasetInfo(
        "many", names, (2, 2, 3), len(labels), len(labels), (0.0,) * 3, (1.0,) * 3, 1.0
    )
    return dataclasses.make_dataclass("Many", ["dataset", "counts"])(
        Dataset(info, source, source, "none"), {"train": np.bincount(labels)}
    )


@pytest.mark.parametrize("count", [3, 40, 41, 1000])
def test_counts_can_be_drawn_of_few_and_of_a_thousand_classes(count):
    png = figures.classes(many_classes(count))
    height, width = (int.from_bytes(png[place : place + 4]) for place in (20, 16))
    assert width == 960
    assert 150 < height < 1300
    assert len(COLORS) > len(page.SPLITS)


playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="no browser")
def test_a_browser_shows_the_page_without_complaints_requests_or_scrolling_sideways(
    report, tmp_path
):
    path = tmp_path / "report.html"
    path.write_bytes(page.html(report))
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        for width in (360, 1280):
            shown = browser.new_page(viewport={"width": width, "height": 800})
            complaints, requests = [], []
            shown.on("console", lambda message, c=complaints: c.append(message.text))
            shown.on("pageerror", lambda error, c=complaints: c.append(str(error)))
            shown.on("request", lambda request, r=requests: r.append(request.url))
            shown.goto(path.as_uri(), wait_until="networkidle")
            sizes = shown.eval_on_selector_all(
                "img", "images => images.map(i => [i.complete, i.naturalWidth])"
            )
            assert shown.evaluate("document.documentElement.scrollWidth") <= width
            text = shown.inner_text("main")
            cells = shown.eval_on_selector_all("td", "all => all.map(cell => cell.innerText)")
            shown.close()
            assert complaints == []
            assert [url for url in requests if not url.startswith("data:")] == [path.as_uri()]
            # Counts, samplings, sizes, and a sheet for each class.
            assert len(sizes) == 5
            assert all(complete and natural > 90 for complete, natural in sizes)
        browser.close()
    for suggestion in report.suggestions:
        assert suggestion in text
    # A name of a file that looks like HTML is text.
    assert "val/ant/<b>.png" in cells
    assert "train/ant/0.png\nval/ant/copy.png" in cells
