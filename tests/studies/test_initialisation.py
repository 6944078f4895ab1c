import inspect

import numpy as np
import pytest
from fake_measurements import initialisation, legend_texts, read

from keras_preact.studies import initialisation as initialisation_study


def drawn(studies):
    return inspect.unwrap(initialisation_study.draw)(studies, "a title")


def looks(line):
    return line.get_color(), line.get_marker()


@pytest.mark.parametrize(("panel", "name"), [(0, "gradient_norm"), (1, "shortcut_norm")])
def test_a_line_is_the_median_of_the_draws_and_a_band_their_range(panel, name):
    study = initialisation("identity", 20, 4)
    getattr(study, name)[:] = [[0.5, 1, 1.5, 2], [1, 1, 1, 1], [3, 1, 1, 1]]
    figure = drawn([study])
    axes = figure.axes[panel]
    np.testing.assert_allclose(axes.get_lines()[0].get_ydata(), [1, 1, 1, 1])
    corners = axes.collections[0].get_paths()[0].vertices
    lowest = [corners[corners[:, 0] == unit, 1].min() for unit in range(1, 5)]
    highest = [corners[corners[:, 0] == unit, 1].max() for unit in range(1, 5)]
    np.testing.assert_allclose(lowest, [0.5, 1, 1, 1])
    np.testing.assert_allclose(highest, [3, 1, 1.5, 2])
    assert len(figure.axes) == 2 and legend_texts(figure)[0] == "identity, 20 layers"


def test_the_product_is_dashed_beside_what_came_through_shortcuts_and_within_the_picture():
    study = initialisation("scaled", 20, 4)
    study.shortcut_product[:] = [1e-20, 1e-10, 1e-5, 1]
    axes = drawn([study]).axes[1]
    median, product = axes.get_lines()
    np.testing.assert_array_equal(product.get_ydata(), study.shortcut_product)
    assert product.get_linestyle() == "--" and product.get_color() == median.get_color()
    assert axes.get_ylim()[0] < 1e-20


def test_several_depths_are_drawn_against_the_depth_and_the_deepest_by_unit():
    studies = [
        initialisation("b", 56, 3, seed=1),
        initialisation("a", 20, 3, seed=2),
        initialisation("b", 20, 2, seed=3),
        initialisation("b", 110, 4, seed=4),
    ]
    figure = drawn(studies)
    whole, through, by_depth = figure.axes
    assert legend_texts(figure)[:2] == ["b, 110 layers", "a, 20 layers"]
    for axes in (whole, through):
        assert len(axes.get_lines()[0].get_ydata()) == 4
    line, product, *_ = by_depth.get_lines()
    ordered = [studies[2], studies[0], studies[3]]
    np.testing.assert_array_equal(line.get_xdata(), [20, 56, 110])
    first = [np.median(study.gradient_norm[:, 0]) for study in ordered]
    np.testing.assert_allclose(line.get_ydata(), first)
    first = [study.shortcut_product[0] for study in ordered]
    np.testing.assert_allclose(product.get_ydata(), first)
    # In the colours and markers of the legend.
    assert [looks(line) for line in by_depth.get_lines()[::2]] == [
        looks(line) for line in whole.get_lines()
    ]


def test_the_caption_names_the_networks_whose_gradient_changes_most_and_least():
    results = [initialisation("a", 20, 3), initialisation("$ b", 56, 3)]
    for result, scale in zip(results, (1, 10), strict=True):
        result.gradient_norm[:, 0] = [scale, 3 * scale, 2 * scale]
        result.shortcut_norm[:, 0] = 0.5
        result.shortcut_product[0] = 0.25 / scale
    text = read(initialisation_study.caption(results))
    assert "the gradient is between 2 (a, 20 layers) and 20 ($ b, 56 layers) times" in text
    assert "through shortcuts alone it is 0.5 times." in text
    assert "(dashed) is between 0.025 ($ b, 56 layers) and 0.25 (a, 20 layers)." in text
