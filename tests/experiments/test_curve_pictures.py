"""Learning curves of rows: medians and bands, and pictures of sixteen rows that can be read."""

import dataclasses

import numpy as np
import pytest
from fake_measurements import drawn, overlapping

from keras_preact.experiments import curve_pictures
from keras_preact.experiments.curve_pictures import apart
from keras_preact.experiments.paper import TABLES
from keras_preact.experiments.row_curves import RowCurves, band
from keras_preact.experiments.run_facts import Curve

LABELS = [row.label for row in TABLES["table1"].rows]


def curve(*points):
    steps, errors = zip(*points, strict=True)
    return Curve(np.array(steps), np.array(errors))


def rows(labels, last=None, is_logged=False):
    """Rows whose curves end close to each other."""
    steps = np.arange(1, 41) * 1600
    found = []
    for place, label in enumerate(labels):
        errors = 0.5 * np.exp(-steps / 20_000) + 0.06 + 0.0005 * place
        curves = [Curve(steps[:last], errors[:last] * factor) for factor in (0.95, 1, 1.1)]
        found.append(RowCurves(label, band(curves), band(curves), (32_000,), is_logged))
    return found


def test_a_band_is_the_median_and_range_of_the_runs_that_have_got_there():
    found = band([curve((1, 0.4), (2, 0.2)), curve((1, 0.6), (2, np.nan)), curve((1, 0.5))])
    assert found.steps.tolist() == [1, 2] and found.runs == 3
    assert found.median.tolist() == [0.5, 0.2]
    assert found.low.tolist() == [0.4, 0.2] and found.high.tolist() == [0.6, 0.2]
    assert not band([]) and band([curve((3, 0.1))])


@pytest.mark.parametrize("seed", range(5))
def test_names_at_the_ends_do_not_overlap_and_stay_in_the_picture(seed):
    random = np.random.default_rng(seed)
    places = random.uniform(0, 1, 16) ** 3
    heights = random.uniform(0.02, 0.06, 16)
    found = np.array(apart(places.tolist(), heights.tolist()))
    order = np.argsort(places)
    gaps = np.diff(found[order]) - (heights[order][1:] + heights[order][:-1]) / 2
    assert gaps.min() > -1e-9
    assert (found - heights / 2).min() > -1e-9 and (found + heights / 2).max() < 1 + 1e-9


def test_names_with_room_stay_where_their_curves_end():
    assert apart([0.8, 0.2, 0.5], [0.1] * 3) == pytest.approx([0.8, 0.2, 0.5])
    assert apart([0.5, 0.5], [0.1, 0.1]) == pytest.approx([0.45, 0.55])


@pytest.mark.parametrize("labels", [LABELS, LABELS[:1], ["a long name, " * 6] * 4])
def test_all_texts_of_the_overview_can_be_read(labels):
    picture = drawn(curve_pictures.overview, rows(labels), "A title", "test error")
    assert overlapping(picture) == []


@pytest.mark.parametrize("labels", [LABELS, LABELS[:2], LABELS[:1]])
def test_all_texts_of_the_panels_can_be_read(labels):
    picture = drawn(curve_pictures.panels, rows(labels), "A title", "test error")
    assert overlapping(picture) == []


def test_each_panel_has_its_row_bold_its_training_thin_and_its_drops_marked():
    picture = drawn(curve_pictures.panels, rows(LABELS[:3]), "A title", "test error")
    for axes in picture.axes:
        *others, training, test, drop = axes.get_lines()
        assert (training.get_linestyle(), training.get_linewidth()) == ("--", 1)
        assert (test.get_linestyle(), test.get_linewidth()) == ("-", 2.2)
        assert all(other.get_linewidth() < 1 for other in others) and len(others) == 3
        assert drop.get_xdata()[0] == 32_000


def test_a_row_that_ends_before_the_others_says_where():
    some = [*rows(["long"]), *rows(["short"], last=10)]
    picture = drawn(curve_pictures.overview, some, "A title", "test error")
    texts = [text.get_text() for text in picture.axes[0].texts]
    assert texts[0].endswith("long") and texts[1].endswith("short (step 16,000)")


def test_errors_far_apart_are_on_a_logarithmic_axis_with_names_at_their_ends():
    low, high = rows(["works"])[0], rows(["fails"])[0]
    steps = high.training.steps
    high = dataclasses.replace(high, evaluation=band([Curve(steps, np.full(len(steps), 0.9))]))
    picture = drawn(curve_pictures.overview, [low, high], "A title", "test error")
    [axes] = picture.axes
    assert axes.get_yscale() == "log" and overlapping(picture) == []
    works, fails = axes.texts
    assert works.get_position()[1] < 0.5 < fails.get_position()[1]
    assert drawn(curve_pictures.overview, [low], "A title", "test error").axes[0].get_yscale() == (
        "linear"
    )
