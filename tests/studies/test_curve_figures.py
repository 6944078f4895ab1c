import dataclasses
import inspect

import numpy as np
import pytest
from fake_measurements import decoded, legend_texts, overlapping, read

from keras_preact.studies import curve_figures
from keras_preact.studies.curve_figures import GroupCurves
from keras_preact.support.plotting import COLORS

LONG = "ResNet-1001, full_preactivation, constant_scaling (shortcut_scale=0.5, residual_scale=1)"


def a_run(label="a run", depth=20, kind="a kind", count=4, runs=1):
    random = np.random.default_rng(len(label) + depth)
    errors = np.sort(random.uniform(0.01, 0.9, (2, runs, count)))[..., ::-1].copy()
    return GroupCurves(label, kind, depth, np.arange(1, count + 1) * 390, *errors)


def some_runs(count, depths=(20,)):
    return [
        a_run(f"ResNet-{depths[n % len(depths)]} of {n}", depths[n % len(depths)], f"kind {n % 2}")
        for n in range(count)
    ]


def drawn(draw, runs):
    return inspect.unwrap(draw)(runs, "a title")


def looks(line):
    return line.get_color(), line.get_marker(), line.get_linestyle()


def test_curves_are_the_errors_in_percent_evaluation_solid_and_training_dashed():
    runs = some_runs(3)
    figure = drawn(curve_figures.draw_curves, runs)
    [axes] = figure.axes
    lines = axes.get_lines()
    assert len(lines) == 6
    for run, solid, dashed in zip(runs, lines[::2], lines[1::2], strict=True):
        np.testing.assert_array_equal(solid.get_xdata(), run.steps)
        np.testing.assert_allclose(solid.get_ydata(), 100 * run.eval_error[0])
        np.testing.assert_allclose(dashed.get_ydata(), 100 * run.train_error[0])
        assert solid.get_linewidth() > 2 * dashed.get_linewidth()
        assert (solid.get_linestyle(), dashed.get_linestyle()) == ("-", "--")
        assert looks(solid)[:2] == looks(dashed)[:2]
    assert len({looks(line) for line in lines}) == 6
    assert legend_texts(figure) == [*(run.label for run in runs), "evaluation", "training"]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("step", "error (%)")
    assert axes.get_ylim()[0] == 0


def test_final_errors_of_one_depth_are_bars_with_their_number():
    runs = some_runs(3)
    figure = drawn(curve_figures.draw_final_errors, runs)
    [axes] = figure.axes
    assert [label.get_text() for label in axes.get_yticklabels()] == [run.label for run in runs]
    bars = sorted(axes.patches, key=lambda bar: bar.get_y())
    expected = [error[-1] for run in runs for error in (run.eval_error[0], run.train_error[0])]
    np.testing.assert_allclose([bar.get_width() for bar in bars], np.multiply(100, expected))
    tops = [bar.get_y() + bar.get_height() for bar in bars[:-1]]
    assert all(top < bar.get_y() for top, bar in zip(tops, bars[1:], strict=True))
    texts = sorted(axes.texts, key=lambda text: text.xy[1])
    assert [text.get_text() for text in texts] == [f"{100 * error:.2f}" for error in expected]
    # Training is empty, as the legend says; the first run is on top.
    assert [bar.get_facecolor()[3] for bar in bars] == [1, 0] * 3
    assert legend_texts(figure) == ["evaluation", "training"]
    filled = [patch.get_facecolor()[3] for patch in figure.legends[0].get_patches()]
    assert filled == [1, 0]
    assert axes.yaxis_inverted() and axes.get_xlim()[0] == 0
    assert axes.get_xlabel() == "error (%)"


def test_final_errors_of_several_depths_are_a_line_for_each_kind_by_depth():
    runs = [
        a_run("c", 56, "plain"),
        a_run("a", 20, "plain"),
        a_run("d", 20, "residual"),
        a_run("b", 110, "plain"),
    ]
    figure = drawn(curve_figures.draw_final_errors, runs)
    [axes] = figure.axes
    plain, plain_training, residual, residual_training = axes.get_lines()
    ordered = [runs[1], runs[0], runs[3]]
    np.testing.assert_array_equal(plain.get_xdata(), [20, 56, 110])
    np.testing.assert_array_equal(plain_training.get_xdata(), [20, 56, 110])
    last = [100 * run.eval_error[0, -1] for run in ordered]
    np.testing.assert_allclose(plain.get_ydata(), last)
    last = [100 * run.train_error[0, -1] for run in ordered]
    np.testing.assert_allclose(plain_training.get_ydata(), last)
    np.testing.assert_allclose(residual.get_ydata(), [100 * runs[2].eval_error[0, -1]])
    np.testing.assert_allclose(residual_training.get_ydata(), [100 * runs[2].train_error[0, -1]])
    assert (plain.get_linestyle(), plain_training.get_linestyle()) == ("-", "--")
    assert looks(plain)[:2] == looks(plain_training)[:2] != looks(residual)[:2]
    assert legend_texts(figure) == ["plain", "residual", "evaluation", "training"]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("depth (weighted layers)", "error (%)")
    assert axes.get_ylim()[0] == 0


@pytest.mark.parametrize("draw", [curve_figures.draw_curves, curve_figures.draw_final_errors])
@pytest.mark.parametrize(
    "runs",
    [
        some_runs(1),
        some_runs(9),
        some_runs(9, (8, 14, 20)),
        some_runs(6, (20, 32, 44, 56, 110, 1001)),
        some_runs(12),
        [a_run(f"{LONG} {n}", runs=5, count=40) for n in range(6)],
        [a_run(f"net {n}", 20 + 6 * n, runs=5) for n in range(6)],
        [a_run(f"{LONG} (runs/experiment_{n})", kind=f"{LONG} {n}") for n in range(4)],
        [a_run(f"costs ${n} & x_{n}$", 20 + 6 * n, f"$kind_{n}$") for n in range(3)],
    ],
    ids=[
        "one",
        "nine",
        "three depths",
        "many depths",
        "twelve",
        "seeds",
        "seeds by depth",
        "long",
        "dollars",
    ],
)
def test_no_text_covers_another_or_leaves_the_picture(draw, runs):
    assert overlapping(drawn(draw, runs)) == []


@pytest.mark.parametrize("draw", [curve_figures.draw_curves, curve_figures.draw_final_errors])
def test_long_names_leave_half_of_the_picture_to_the_errors(draw):
    figure = drawn(draw, [a_run(f"{LONG} (runs/experiment_{n})") for n in range(4)])
    figure.draw_without_rendering()
    assert figure.axes[0].get_position().width > 0.5


@pytest.mark.parametrize("draw", [curve_figures.draw_curves, curve_figures.draw_final_errors])
def test_errors_that_are_not_numbers_or_0_can_be_drawn(draw):
    runs = some_runs(3)
    runs[0].eval_error[:] = np.nan
    runs[1].train_error[0, -1] = np.nan
    runs[2].eval_error[:] = 0
    figure = drawn(draw, runs)
    figure.draw_without_rendering()
    assert all(np.isfinite(figure.axes[0].get_xlim()))


@pytest.mark.parametrize("draw", [curve_figures.draw_curves, curve_figures.draw_final_errors])
@pytest.mark.parametrize("count", range(1, 10))
def test_one_to_nine_runs_become_a_png_with_the_colours_of_the_runs(draw, count):
    pixels = decoded(draw(some_runs(count, (20, 56)), "a title"))
    assert pixels.shape[1] == 1080 and pixels.shape[0] > 250
    lines = count if draw is curve_figures.draw_curves else min(count, 2)
    bars = draw is curve_figures.draw_final_errors and count == 1
    for color in COLORS[5:6] if bars else COLORS[:lines]:
        rgb = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        assert (abs(pixels - rgb).max(axis=-1) < 0.02).sum() > 50


def ending(label, depth, kind, train, evaluation):
    return GroupCurves(
        label, kind, depth, np.array([1, 2]), np.array([[1, train]]), np.array([[1, evaluation]])
    )


def test_the_caption_of_the_curves_names_the_runs_that_end_best_and_worst():
    runs = [ending("a $", 20, "k", 0.1, 0.2), ending("b", 20, "k", 0.05, 0.25)]
    text = read(curve_figures.curves_caption(runs))
    assert "the evaluation error is between 20 % (a $) and 25 % (b)" in text
    assert "the training error between 5 % (b) and 10 % (a $)." in text
    text = read(curve_figures.final_errors_caption(runs))
    assert "minus the training error is between 10 % (a $) and 20 % (b)." in text


def test_the_caption_of_several_depths_tells_degradation_from_progress():
    runs = [
        ending("a", 56, "plain", 0.13, 0.2),
        ending("b", 20, "plain", 0.08, 0.2),
        ending("c", 20, "residual", 0.08, 0.15),
        ending("d", 56, "residual", 0.04, 0.1),
        ending("e", 20, "alone", 0.5, 0.5),
    ]
    text = read(curve_figures.final_errors_caption(runs))
    assert (
        "plain: with 56 in place of 20 layers the training error rises from 8 % to 13 % and the "
        "evaluation error stays at 20 %." in text
    )
    assert (
        "residual: with 56 in place of 20 layers the training error falls from 8 % to 4 %" in text
    )
    assert "alone" not in text
    assert text.endswith("Degradation is a training error that rises with depth.")


def test_several_runs_are_a_mean_and_a_band_of_one_standard_deviation():
    several, one = a_run("several", runs=4), a_run("one")
    figure = drawn(curve_figures.draw_curves, [several, one])
    [axes] = figure.axes
    solid, dashed, *_ = axes.get_lines()
    evaluation, training = 100 * several.eval_error, 100 * several.train_error
    np.testing.assert_allclose(solid.get_ydata(), evaluation.mean(axis=0))
    np.testing.assert_allclose(dashed.get_ydata(), training.mean(axis=0))
    # One run has no band.
    bands = axes.collections
    assert len(bands) == 2
    for band, errors in zip(bands, (evaluation, training), strict=True):
        deviation = np.sqrt(((errors - errors.mean(axis=0)) ** 2).sum(axis=0) / 3)
        vertices = band.get_paths()[0].vertices
        for step, mean, std in zip(several.steps, errors.mean(axis=0), deviation, strict=True):
            heights = vertices[vertices[:, 0] == step, 1]
            np.testing.assert_allclose([heights.min(), heights.max()], [mean - std, mean + std])
    assert legend_texts(figure)[:2] == ["several (4 runs)", "one"]


@pytest.mark.parametrize("depths", [(20,), (20, 56)])
def test_final_errors_of_several_runs_show_each_of_them(depths):
    groups = [a_run(f"net {depth}", depth, runs=3) for depth in depths]
    figure = drawn(curve_figures.draw_final_errors, groups)
    [axes] = figure.axes
    dots = {
        round(y if len(depths) > 1 else x, 6) for c in axes.collections for x, y in c.get_offsets()
    }
    every = [errors[:, -1] for g in groups for errors in (g.eval_error, g.train_error)]
    assert dots == {round(100 * error, 6) for errors in every for error in errors}
    if len(depths) == 1:
        last = 100 * groups[0].eval_error[:, -1]
        text = f"{last.mean():.2f} \N{PLUS-MINUS SIGN} {np.std(last, ddof=1):.2f}"
        assert text in [each.get_text() for each in axes.texts]
    else:
        means = [100 * group.eval_error[:, -1].mean() for group in groups]
        np.testing.assert_allclose(
            [line.get_ydata()[0] for line in axes.get_lines()[::2]], means[0]
        )


def test_the_axis_of_long_training_fits_its_later_errors():
    group = a_run(count=40)
    group.eval_error[:] = group.train_error[:] = 0.1
    group.eval_error[0, :3] = 0.9
    [axes] = drawn(curve_figures.draw_curves, [group]).axes
    assert axes.get_ylim() == pytest.approx((0, 11))
    assert "at the beginning are above the picture" in read(curve_figures.curves_caption([group]))
    short = a_run(count=5)
    [axes] = drawn(curve_figures.draw_curves, [short]).axes
    assert axes.get_ylim()[1] > 100 * max(short.eval_error.max(), short.train_error.max())
    assert "above the picture" not in read(curve_figures.curves_caption([short]))


def test_captions_say_what_means_and_bands_are_and_what_is_left_out():
    group = dataclasses.replace(a_run("a net", runs=3), left_out=7)
    text = read(curve_figures.curves_caption([group, a_run("another")]))
    assert "Lines are means over runs that differ in their seeds alone" in text
    assert "Of a net, 7 evaluations are left out, which not all of its 3 runs have; its " in text
    assert "curve ends at step 1,560." in text
    mean = 100 * group.eval_error[:, -1].mean()
    assert f"{mean:.3g} % (a net)" in text
    assert "each dot is a run" in read(curve_figures.final_errors_caption([group]))
    assert "means" not in read(curve_figures.curves_caption([a_run()]))
