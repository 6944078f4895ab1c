"""Pictures of a run, read back from their files."""

import dataclasses
import io

import matplotlib
import matplotlib.image
import numpy as np
import pytest
from PIL import Image

from keras_preact.training.reporting import class_figures, figures
from keras_preact.training.reporting.metrics_file import Row
from keras_preact.training.steps.scores import Evaluation, MultiLabelEvaluation

NAMES = ("ant", "bee", "cat", "dog", "eel", "fox", "gnu", "hen", "ibis", "jay")


def decoded(png):
    """Decodes a PNG: uint8 (height, width, 3)."""
    assert png.startswith(b"\x89PNG")
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))


def pixels(picture, color, tolerance=0):
    """Counts the pixels of a colour."""
    return int((np.abs(picture.astype(int) - color).max(axis=-1) <= tolerance).sum())


def flat(colors, size=6):
    """Images of one colour each: uint8 (count, size, size, channels)."""
    values = np.array(colors, np.uint8)
    return np.broadcast_to(values[:, None, None], (len(values), size, size, values.shape[1]))


@pytest.mark.parametrize(("color", "shown"), [((200, 5, 30), (200, 5, 30)), ((90,), (90, 90, 90))])
@pytest.mark.parametrize("size", [(1, 1), (1, 5), (5, 1)])
def test_images_of_single_pixels_are_shown_too(size, color, shown):
    images = np.broadcast_to(np.array(color, np.uint8), (2, *size, len(color)))
    picture = decoded(figures.batch(images, np.arange(2), NAMES))
    assert pixels(picture, shown, tolerance=1) > 2000


@pytest.mark.parametrize(("count", "rows"), [(1, 1), (4, 1), (5, 2), (16, 4), (40, 4)])
def test_a_batch_has_four_images_a_row_and_sixteen_at_most(count, rows):
    colors = [(200, 5 * n, 30) for n in range(count)]
    picture = decoded(figures.batch(flat(colors), np.arange(count) % 10, NAMES))
    assert picture.shape == (220 * rows, 800, 3)
    shown = [pixels(picture, color) for color in colors]
    assert min(shown[:16]) > 20_000, "each about 190 pixels wide and high"
    assert not any(shown[16:])


def test_grey_is_shown_as_it_is_and_not_stretched():
    picture = decoded(figures.batch(flat([(100,), (104,), (180,)]), np.zeros(3, int), NAMES))
    for grey in (100, 104, 180):
        assert pixels(picture, (grey,) * 3, tolerance=1) > 20_000


def test_images_stand_in_their_order_and_upright():
    images = np.zeros((2, 4, 4, 3), np.uint8)
    images[0, :2] = (250, 0, 0)  # the upper half
    images[1, :, 2:] = (0, 250, 0)  # the right half
    picture = decoded(figures.batch(images, np.array([0, 1]), NAMES))
    rows, columns = np.nonzero((picture == (250, 0, 0)).all(axis=-1))
    assert rows.max() < 130 and columns.max() < 200
    rows, columns = np.nonzero((picture == (0, 250, 0)).all(axis=-1))
    assert np.ptp(rows) > 150 and columns.min() > 290 and columns.max() < 400


def test_an_image_stands_under_the_name_of_its_label():
    images = flat([(0, 0, 0)] * 2)
    as_dog = figures.batch(images, np.array([3, 3]), NAMES)
    assert as_dog == figures.batch(images, np.array([0, 0]), ("dog",))
    assert as_dog != figures.batch(images, np.array([3, 4]), NAMES)


def test_the_end_of_a_long_name_is_left_out():
    images = flat([(0, 0, 0)])
    names = ["a" * 30, "a" * 300]
    assert len({figures.batch(images, np.array([label]), names) for label in (0, 1)}) == 1
    # Full names would leave no room for the matrix.
    areas = []
    for name in ("a", "a" * 300):
        picture = decoded(figures.confusion(np.eye(10, dtype=int), [name] * 10, "title"))
        areas.append(pixels(picture, color_of(100), tolerance=1))
    assert areas[1] > 0.4 * areas[0]


def color_of(percent):
    """The colour of a share in the colour map cividis."""
    return np.rint(255 * np.array(matplotlib.colormaps["cividis"](percent / 100)[:3])).astype(int)


def test_a_confusion_matrix_is_coloured_by_shares_of_the_true_class():
    # Rows of 4, 10 and no images.
    counts = np.array([[3, 1, 0], [0, 4, 6], [0, 0, 0]])
    picture = decoded(figures.confusion(counts, NAMES[:3], "a title"))
    assert picture.shape == (600, 700, 3)
    cell = pixels(picture, color_of(75), tolerance=1)
    assert cell > 10_000
    for percent in (25, 40, 60):
        assert pixels(picture, color_of(percent), tolerance=1) == pytest.approx(cell, rel=0.1)
    assert pixels(picture, color_of(0), tolerance=1) == pytest.approx(5 * cell, rel=0.1)


def test_true_classes_are_rows_and_predictions_columns():
    counts = np.zeros((2, 2), int)
    counts[0, 1] = counts[1, 1] = 1  # the second class is always predicted
    picture = decoded(figures.confusion(counts, NAMES[:2], "a title"))[:, :590]  # without the bar
    left, right = (
        np.nonzero(np.abs(picture - color_of(percent)).max(axis=-1) <= 1)[1] for percent in (0, 100)
    )
    assert min(len(left), len(right)) > 10_000
    assert left.max() < right.min()


def confusion(classes, names=None, factor=1):
    counts = factor * (3 * np.eye(classes, dtype=int) + np.eye(classes, k=1, dtype=int))
    names = names or [str(n) for n in range(classes)]
    return decoded(figures.confusion(counts, names, "a title"))


@pytest.mark.parametrize("classes", [2, 12, 13, 30, 31, 100])
def test_a_matrix_of_any_size_can_be_drawn(classes):
    picture = confusion(classes)
    assert picture.shape == (600, 700, 3)
    # The diagonal, of 75 %, is about one part in `classes` of 500 x 500 pixels.
    assert pixels(picture, color_of(75), tolerance=3) > 0.3 * 250_000 / classes


@pytest.mark.parametrize(
    ("classes", "names_shown", "counts_shown"),
    [(12, True, True), (13, True, False), (30, True, False), (31, False, False)],
)
def test_names_and_counts_are_shown_where_there_is_room(classes, names_shown, counts_shown):
    picture = confusion(classes)
    other_names = confusion(classes, [f"-{n}" for n in range(classes)])
    assert np.array_equal(picture, other_names) != names_shown
    assert np.array_equal(picture, confusion(classes, factor=2)) != counts_shown


def rows(count):
    return [
        Row(10 * n, n, 2 / n, 1 - 0.5 / n, 1 / n, 1 - 0.3 / n, 0.1, 100.0, 1.0 * n)
        for n in range(1, count + 1)
    ]


def test_the_picture_shows_both_curves_in_their_colours(tmp_path):
    figures.curves(rows(5), "a title", tmp_path / "curves.png", drop_steps=(30,))
    picture = matplotlib.image.imread(tmp_path / "curves.png")[..., :3]
    assert picture.shape[0] > 300 and picture.shape[1] > 800
    for color in (figures.TRAIN_COLOR, figures.EVAL_COLOR):
        rgb = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        assert (abs(picture - rgb).max(axis=-1) < 0.01).sum() > 200
    assert [path.name for path in tmp_path.iterdir()] == ["curves.png"]


def test_the_curves_of_several_labels_show_their_figures(tmp_path):
    more = {"eval_mean_average_precision": 0.75, "eval_macro_f1": 0.25}
    several = [dataclasses.replace(row, **more) for row in rows(5)]
    pictures = []
    for name, of_run in (("one", rows(5)), ("several", several)):
        figures.curves(of_run, "a title", tmp_path / name)
        pictures.append(decoded((tmp_path / name).read_bytes()))
    assert not np.array_equal(*pictures)
    # A run that an earlier version began.
    figures.curves([*rows(2), *several[2:]], "a title", tmp_path / "both")


def evaluation_of(classes):
    rng = np.random.default_rng(0)
    labels = (rng.random((200, classes)) < 0.3).astype(float)
    labels[:, 0] = 0
    return MultiLabelEvaluation.of(0.5, labels + rng.normal(size=labels.shape) - 0.5, labels)


@pytest.mark.parametrize("classes", [2, 40, 60])
def test_bars_show_the_figures_of_at_most_forty_classes(classes):
    names = [f"class {number}" for number in range(classes)]
    png = class_figures.bars(evaluation_of(classes), names, "a title")
    picture = decoded(png)
    assert picture.shape[0] == pytest.approx(100 * (1.5 + 0.3 * min(classes, 40)), abs=2)
    for color in (figures.EVAL_COLOR, figures.TRAIN_COLOR):
        rgb = [int(color[i : i + 2], 16) for i in (1, 3, 5)]
        assert pixels(picture, rgb, tolerance=1) > 500


def test_the_table_of_classes_has_a_row_for_each():
    several = evaluation_of(3)
    lines = class_figures.table(several, ["ant", "be|e", "cat"]).splitlines()
    assert lines[:2] == ["| class | average precision | F1 | images |", "|---|---|---|---|"]
    assert lines[2].startswith("| ant | nan% |") and lines[2].endswith(" 0 |")
    assert f"{several.class_f1[2]:.2%}" in lines[4]
    one = Evaluation(0.5, np.array([[3, 1], [0, 4]]))
    assert class_figures.table(one, ["ant", "bee"]).splitlines()[2:] == [
        "| ant | 75.00% | 4 |",
        "| bee | 100.00% | 4 |",
    ]


def test_the_title_of_an_image_names_all_its_labels():
    images, labels = flat([(0, 0, 0)] * 2), np.eye(2, 10) + np.eye(2, 10, k=3)
    several = figures.batch(images, labels, NAMES)
    assert several == figures.batch(images, np.array([0, 1]), ("ant, dog", "bee, eel"))
    assert figures.batch(images, np.zeros((2, 10)), NAMES) == figures.batch(
        images, np.array([0, 0]), ("",)
    )


def test_a_single_row_can_be_drawn(tmp_path):
    figures.curves(rows(1), "a title", tmp_path / "curves.png")
    assert (tmp_path / "curves.png").stat().st_size > 5_000
