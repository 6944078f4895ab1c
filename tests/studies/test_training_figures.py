"""The figures of a training, against the records."""

import dataclasses

import numpy as np
import pytest
from fake_measurements import drawn, names, read

from keras_preact.studies import training_figures
from keras_preact.training.reporting.propagation_file import PropagationLog


@pytest.mark.parametrize("log", [False, True])
def test_over_training_has_a_column_for_each_step_and_the_first_unit_at_the_bottom(log):
    cells = np.array([[1, 2, 0], [3, np.nan, 4.0]])
    figure = drawn(
        training_figures.draw, np.array([10, 20]), names(3), cells, "norm", "a title", log
    )
    axes, bar = figure.axes
    mesh = axes.collections[0]
    expected = np.ma.masked_invalid(cells.T)
    if log:
        expected[2, 0] = np.ma.masked
    shown = mesh.get_array()
    np.testing.assert_array_equal(shown.mask, expected.mask)
    np.testing.assert_array_equal(shown.filled(-1), expected.filled(-1))
    corners = mesh.get_coordinates()
    np.testing.assert_allclose(corners[0, :, 0], [5, 15, 25])
    np.testing.assert_allclose(corners[:, 0, 1], [0.5, 1.5, 2.5, 3.5])
    assert not axes.yaxis_inverted()
    assert [t.get_text() for t in axes.get_yticklabels()] == list(names(3))
    assert bar.get_ylabel() == "norm"
    assert mesh.norm.vmax == 4 and mesh.norm.vmin == (1 if log else 0)


@pytest.mark.parametrize("step", [0, 64_000])
def test_a_single_step_is_a_column_around_it(step):
    figure = drawn(training_figures.draw, np.array([step]), names(2), np.ones((1, 2)), "", "", True)
    axes = figure.axes[0]
    low, high = axes.get_xlim()
    assert 0 <= low <= step < high
    figure.draw_without_rendering()
    ticks = [t.get_text() for t in axes.get_xticklabels()]
    assert str(step) in ticks


def log(steps, **given):
    """Records of two units: what a field is not given is 1 throughout."""
    fields = {field.name: np.ones((len(steps), 2)) for field in dataclasses.fields(PropagationLog)}
    fields |= {"steps": np.array(steps), "units": names(2)}
    return PropagationLog(**fields | {name: np.array(v) for name, v in given.items()})


def test_the_caption_of_truncation_compares_the_first_record_with_the_last():
    records = log([0, 50, 1000], truncated_fraction=[[0.5, 0.25], [0.75, 0.5], [0.125, 0.125]])
    text = read(training_figures.truncation_caption(records))
    assert "37.5 % of the sum yl at step 0 and 12.5 % at step 1,000" in text
    assert "at most 75 % (step 50, stage1_unit1)." in text


def test_a_training_without_truncation_is_a_sentence():
    records = log([0, 50], truncated_fraction=np.zeros((2, 2)))
    truncation, gradient = training_figures.figures(records, "a net")
    assert truncation.png is None and gradient.png is None
    assert "f zeroes no element of any sum yl from step 0 to step 50." in read(truncation.caption)


def test_the_caption_of_the_gradient_names_its_extremes():
    records = log([0, 50], gradient_norm=[[1, 3], [1e-9, np.inf]])
    text = read(training_figures.gradient_caption(records))
    assert "is 2 at step 0 and infinite at step 50" in text
    assert "smallest with 10-9 (step 50, stage1_unit1)" in text
    assert "largest with 3 (step 0, stage2_unit2)." in text
    records = log([0, 50], gradient_norm=np.full((2, 2), np.nan))
    assert "not finite in any unit from step 0" in read(training_figures.gradient_caption(records))
