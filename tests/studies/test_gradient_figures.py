"""The figures of the gradient, against the measurements and closed forms."""

import dataclasses

import numpy as np
import pytest
from fake_measurements import backward, drawn, legend_texts, read

from keras_preact.studies import gradient_figures


def test_the_product_stands_beside_gradients_relative_to_the_last_one():
    measured = backward(5)
    figure = drawn(gradient_figures.draw_shortcut_product, measured, "a title")
    whole, product, first = figure.axes[0].get_lines()[:3]
    np.testing.assert_allclose(whole.get_ydata(), 4 * measured.gradient_norm)
    np.testing.assert_array_equal(product.get_ydata(), measured.shortcut_product)
    np.testing.assert_allclose(first.get_ydata(), 4 * measured.shortcut_norm)
    assert product.get_linestyle() == "--" and whole.get_linestyle() == "-"
    assert "equation (8)" in legend_texts(figure)[1]


def test_factors_are_histograms_of_each_unit_in_percent():
    measured = backward(3)
    # The first, the middle and the last of 51 bins from 0 to 1.
    measured.factor_values[0][:] = 0
    measured.factor_values[1][:] = np.repeat([0.5, 1], [75, 25])
    measured.factor_values[2][:] = np.repeat([np.nan, 0.5], [60, 40])
    measured.shortcut_factor[:] = [0, 0.625, 0.5]
    axes = drawn(gradient_figures.draw_factors, measured, "a title").axes[0]
    cells = axes.collections[0].get_array()
    expected = np.zeros((51, 3))
    expected[0, 0], expected[[25, 50], 1], expected[25, 2] = 100, [75, 25], 100
    np.testing.assert_allclose(cells.filled(0), expected)
    corners = axes.collections[0].get_coordinates()
    np.testing.assert_allclose(corners[0, :, 0], [0.5, 1.5, 2.5, 3.5])
    np.testing.assert_allclose(corners[:, 0, 1], np.linspace(0, 1, 52))
    np.testing.assert_array_equal(axes.get_lines()[0].get_ydata(), [0, 0.625, 0.5])


def test_constant_factors_lie_in_the_middle_of_the_panel():
    measured = backward(3)
    for of_unit in (*measured.factor_values, measured.shortcut_factor):
        of_unit[:] = 1
    axes = drawn(gradient_figures.draw_factors, measured, "a title").axes[0]
    cells = axes.collections[0].get_array()
    assert cells[25].tolist() == [100] * 3 and cells.count() == 3
    np.testing.assert_allclose(np.mean(axes.get_ylim()), 1)


def test_networks_beside_each_other_have_one_scale_that_holds_them_all():
    named = [(str(n), backward(4)) for n in range(4)]
    named[2][1].gradient_norm[1] = 50
    named[3][1].shortcut_norm[:] = 0
    figure = drawn(gradient_figures.draw_beside, named, "a title")
    assert len(figure.axes) == 4
    for axes, (_, measured) in zip(figure.axes, named, strict=True):
        assert axes.get_ylim() == figure.axes[0].get_ylim()
        for line, norms in zip(
            axes.get_lines()[:3],
            (measured.gradient_norm, measured.shortcut_norm, measured.residual_norm),
            strict=True,
        ):
            np.testing.assert_array_equal(line.get_ydata(), np.where(norms > 0, norms, np.nan))
    low, high = figure.axes[0].get_ylim()
    everything = np.concatenate([m.gradient_norm for _, m in named])
    assert low < everything.min() and high > 50
    titles = [axes.get_title() for axes in figure.axes]
    assert titles == ["0", "1", "2", "3\n(nothing through shortcuts alone)"]


def four_units(**changed):
    """Measurements of two stages of two units, with some fields changed; 0.5 at the end."""
    measured = dataclasses.replace(backward(4), output_gradient_norm=0.5)
    measured.stages[:] = [1, 1, 2, 2]
    for field, values in changed.items():
        getattr(measured, field)[:] = values
    return measured


def test_the_caption_of_the_gradient_says_where_its_first_term_is_lost():
    # From the end: 0.5 in unit 4, 0.1 where stage 2 begins, nothing in unit 2, 0.2 in unit 1.
    measured = four_units(
        gradient_norm=[1.5, 1, 1, 1],
        shortcut_norm=[0.005, 0.025, 0.025, 0.25],
        cosine=[0, 1, 0, -0.5],
    )
    text = read(gradient_figures.gradient_caption(measured))
    assert (
        "At the first unit the norm of the gradient is 3 times that at the end of the last one."
        in text
    )
    assert "is 0.01 times that: a factor of 0.02 over the units that begin a stage" in text
    assert "and a factor of 0.5 over all others." in text
    assert "is between -0.5 (stage3_unit4) and 1 (stage1_unit2);" in text


def test_the_caption_of_a_level_first_term_says_that_nothing_is_lost():
    measured = four_units(gradient_norm=0.5, shortcut_norm=0.5)
    text = read(gradient_figures.gradient_caption(measured))
    assert "the norm of the gradient is 1 times that at the end" in text
    assert "is 1 times that: a factor of 1 over" in text and "a factor of 1 over all others" in text


def test_where_every_unit_begins_a_stage_there_are_no_others():
    measured = four_units(shortcut_norm=0.25)
    measured.stages[:] = [1, 2, 3, 4]
    text = read(gradient_figures.gradient_caption(measured))
    assert "is 0.5 times that: a factor of 0.5" in text and "others" not in text
    assert "Over the units" not in read(gradient_figures.shortcut_product_caption(measured))


def test_the_captions_of_a_plain_net_say_that_nothing_comes_through_shortcuts():
    measured = backward(6, plain=True)
    assert "None of it comes through shortcuts alone" in read(
        gradient_figures.gradient_caption(measured)
    )
    text = read(gradient_figures.shortcut_product_caption(measured))
    assert "There are no shortcuts: the product is 0" in text


@pytest.mark.parametrize(("factor", "product"), [(0.5, "0.0625"), (1.0, "1"), (2.0, "16")])
def test_the_caption_of_the_product_compares_it_with_what_was_measured(factor, product):
    # Half of the gradient is lost where stage 2 begins; elsewhere equation (8) holds.
    expected = factor ** np.array([4, 3, 2, 1])
    measured = four_units(
        shortcut_product=expected,
        shortcut_norm=0.5 * expected * [0.5, 0.5, 0.5, 1],
        gradient_norm=1.0,
    )
    text = read(gradient_figures.shortcut_product_caption(measured))
    assert f"The product of all factors is {product}." in text
    assert f"{expected[0] / 2:.3g} times the gradient at the end of the last unit arrives" in text
    assert "the whole gradient there is 2 times that at the end" in text
    shown = f"{factor**2:g}"
    assert f"the product is {shown}, and the measured factor {shown}." in text


@pytest.mark.parametrize(
    ("factor", "sentence"),
    [
        (1.0, "is 1 in every unit: a shortcut passes the signal on unchanged"),
        (0.0, "is 0 in every unit: there are no shortcuts."),
        (0.5, "is 0.5 in every unit, projections aside."),
    ],
)
def test_factors_that_are_all_alike_become_a_sentence(factor, sentence):
    measured = four_units(shortcut_factor=factor)
    for values in measured.factor_values:
        values[:] = factor
    found = gradient_figures.figures(measured, "a net")[-1]
    assert found.name == "factors" and found.png is None
    assert sentence in read(found.caption)


def test_factors_that_differ_are_drawn_with_the_span_of_their_values():
    measured = four_units(shortcut_factor=[0.25, 0.5, 0.5, 0.5])
    for values in measured.factor_values:
        values[:] = 0.5
    measured.factor_values[2][:2] = [0.125, 0.75]
    found = gradient_figures.figures(measured, "a net")[-1]
    assert found.png.startswith(b"\x89PNG")
    text = read(found.caption)
    assert "is between 0.25 (stage1_unit1) and 0.5 (stage1_unit2)." in text
    assert "from 0.125 to 0.75:" in text


def test_the_caption_of_networks_beside_each_other_names_the_extremes():
    firsts = {"a $": 2.0, "b": 5e-10, "c": 0.5}
    named = [
        (name, four_units(gradient_norm=value, shortcut_norm=value / 10))
        for name, value in firsts.items()
    ]
    text = read(gradient_figures.beside_caption(named))
    assert "between 10-9 (b) and 4 (a $) times" in text
    assert "alone it is between 10-10 (b) and 0.4 (a $) times" in text
    text = read(gradient_figures.beside_caption(named[:1]))
    assert "the gradient is 4 times" in text and "alone it is 0.4 times" in text
