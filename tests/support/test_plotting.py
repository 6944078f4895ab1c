"""The one set-up of pictures: palette, axes and texts by residual unit."""

import pathlib
import re

import numpy as np
import pytest

import keras_preact
from keras_preact.support.plotting import (
    COLORS,
    GREY,
    as_png,
    figure,
    fit_log,
    marked,
    plain,
    positive,
    titled_figure,
)

PACKAGE = pathlib.Path(keras_preact.__file__).parent


def test_no_picture_has_colours_of_its_own():
    found = {
        str(path.relative_to(PACKAGE)): re.findall(r"[\"'](#[0-9A-Fa-f]{6})[\"']", path.read_text())
        for path in PACKAGE.rglob("*.py")
    }
    colours = {name: values for name, values in found.items() if values}
    assert colours == {"support/plotting.py": [*COLORS, GREY]}


def luminance(colour):
    """Relative luminance of sRGB, 0 to 1 (WCAG 2)."""
    channels = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    linear = np.where(channels <= 0.03928, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return linear @ [0.2126, 0.7152, 0.0722]


@pytest.mark.parametrize("colour", COLORS)
def test_every_colour_of_a_line_stands_out_from_white(colour):
    # Okabe and Ito's yellow has a contrast of 1.3.
    assert 1.05 / (luminance(colour) + 0.05) > 2


def test_every_fifth_of_90_units_and_each_value_without_neighbours_have_a_marker():
    values = np.ones(90)
    values[[40, 42]] = np.nan
    for place in range(12):
        with_marker = marked(values, place)
        assert 41 in with_marker
        apart = np.diff([n for n in with_marker if n != 41])
        assert sorted(set(apart.tolist())) in ([5], [5, 10])


@pytest.mark.parametrize(
    ("values", "low", "high"),
    [([1, 1], 0.3, 3.2), ([1e-5, 1], 1e-6, 10), ([0, np.nan, 2], 0.6, 6.4)],
)
def test_a_log_axis_shows_all_that_it_can_over_a_decade_at_least(values, low, high):
    axes = figure(figsize=(3, 2)).subplots()
    fit_log(axes, np.array(values, float))
    bottom, top = axes.get_ylim()
    assert axes.get_yscale() == "log"
    assert low < bottom < min(v for v in values if v > 0) and max(values[-1:]) < top < high


def test_a_log_axis_of_nothing_says_so():
    axes = figure(figsize=(3, 2)).subplots()
    fit_log(axes, np.array([0.0, -1, np.nan]))
    assert [text.get_text() for text in axes.texts] == ["nothing above 0"]


def test_values_without_a_place_on_a_log_scale_are_nan():
    np.testing.assert_array_equal(positive([1, 0, -1, np.inf]), [1, np.nan, np.nan, np.nan])


def test_dollar_signs_of_a_name_start_no_formula():
    assert plain("$a$ b") == r"\$a\$ b"
    assert titled_figure("$a$ b", 3, 2).get_suptitle() == "$a$ b"


def test_a_drawn_figure_is_a_png_of_its_size():
    @as_png(dpi=50)
    def draw(width):
        return figure(figsize=(width, 2))

    png = draw(3)
    assert png.startswith(b"\x89PNG")
    assert int.from_bytes(png[16:20]) == 150 and int.from_bytes(png[20:24]) == 100
