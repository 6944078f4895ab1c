"""The figure of lesions, against the measurements."""

import numpy as np
from fake_measurements import drawn, legend_texts, lesions, names, read

from keras_preact.analysis import Lesions
from keras_preact.studies import lesion


def test_lesions_are_in_percent_with_swaps_midway_between_their_units():
    measured = lesions(6)
    measured.deleted_accuracy[2] = np.nan
    measured.swapped[:] = [[0, 5], [2, 3]]
    figure = drawn(lesion.draw, measured, "a title", 0.1)
    deleted, swapped, unchanged, chance = figure.axes[0].get_lines()
    np.testing.assert_array_equal(deleted.get_xdata(), range(1, 7))
    np.testing.assert_array_equal(deleted.get_ydata(), 100 * measured.deleted_accuracy)
    np.testing.assert_array_equal(swapped.get_xdata(), [3.5, 3.5])
    np.testing.assert_array_equal(swapped.get_ydata(), 100 * measured.swapped_accuracy)
    assert unchanged.get_ydata()[0] == 90 and chance.get_ydata()[0] == 10
    assert legend_texts(figure)[2:] == ["unchanged: 90.00 %", "chance: 10 %"]
    without = drawn(lesion.draw, measured, "a title", None)
    assert len(without.axes[0].get_lines()) == 3


def measured(deleted, swapped=(), accuracy=0.9):
    pairs = np.array([(n, n + 1) for n in range(len(swapped))]).reshape(-1, 2)
    deleted, swapped = np.array(deleted), np.array(swapped)
    return Lesions(names(len(deleted)), 100, accuracy, deleted, pairs, swapped)


def test_the_caption_says_what_is_left_without_each_unit():
    text = read(lesion.caption(measured([0.85, 0.3, 0.8], [0.5, 0.875]), 0.1))
    assert "has an accuracy of 90 %, chance is 10 %." in text
    assert "it is 80 % in the median, between 30 % (stage2_unit2) and 85 % (stage1_unit1)." in text
    assert (
        "swapped it is 68.8 % in the median, between 50 % (stage1_unit1 and stage2_unit2)" in text
    )
    assert "Not deleted" not in text


def test_a_net_that_is_at_chance_without_any_unit_is_a_sentence():
    found = lesion.figure(measured([0.1, np.nan, 0.1]), "a net", 0.1)
    text = read(found.caption)
    assert found.png is None
    assert "Without one unit it is 10 % in the median, 10 %." in text
    assert "Not deleted: 1 of the units" in text and "swapped" not in text
    assert lesion.figure(measured([0.1, 0.2]), "a net", 0.1).png is not None
