"""Names of classes, units, runs and models that hold any characters, wherever they are shown."""

import csv
import dataclasses
import io
import pathlib
import re
import warnings
from html import escape

import matplotlib
import numpy as np
import pytest
from fake_measurements import backward, forward, initialisation
from matplotlib.mathtext import MathTextParser
from PIL import Image

import keras_preact
from keras_preact.benchmark import plot as benchmark_plot
from keras_preact.exporting import report as export_report
from keras_preact.exporting.checks.parity import Agreement, Speed
from keras_preact.studies import (
    curve_figures,
    gradient_figures,
    output,
    page,
    signal_figures,
    training_figures,
)
from keras_preact.studies import initialisation as initialisation_study
from keras_preact.studies.curve_figures import GroupCurves
from keras_preact.studies.formulas import EQUATIONS
from keras_preact.training.reporting import figures
from keras_preact.training.reporting import propagation_figure as propagation_pictures
from keras_preact.training.reporting.metrics_file import Row

NAMES = {
    "formula": r"$\frac{1}$",
    "broken formula": r"$\frac{1$ and $x^$",
    "escaped": r"a\$b\$c$d$",
    "underscores": "__a__b^{c}\\",
    "lines": "a\nb\r\nc\t\x1b[31mred\x00",
    "long": "$x" * 250,
    "emoji": "\N{BEAR FACE}\N{VARIATION SELECTOR-16} 熊",
    "page": "<script>alert(1)</script> | `a` *b*",
}
TICKS = np.array([10, 20])


# The slow tests take all names.
QUICK = ("broken formula", "lines", "page")


@pytest.fixture(
    params=[
        name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in NAMES
    ],
    autouse=True,
)
def name(request):
    return NAMES[request.param]


def of_a_batch(name):
    return figures.batch(np.zeros((2, 4, 4, 3), np.uint8), np.array([0, 1]), [name, "b"])


def of_confusion(name):
    return figures.confusion(np.eye(2, dtype=int), [name, "b"], name)


def of_curves(name, path):
    figures.curves([Row(1, 1, 2, 0.5, 2, 0.5, 0.1, 100.0, 1.0)], name, path / "curves.png")
    return (path / "curves.png").read_bytes()


def of_an_export(name):
    agreement, speed = Agreement(4, 0, 0, "image 3", 1.0, 1.0, 0, 0), Speed(4.0, 1600.0)
    return export_report.to_png([export_report.Artifact("keras", agreement, speed)], name)


def of_a_benchmark(name):
    return benchmark_plot.png([dataclasses.replace(BENCHMARK, model=name)], name)


BENCHMARK = benchmark_plot.Row(
    *("resnet20", "float32", "train", "keras", "CPU", 1, 32, 1, 1, 9.0, 8.0, 10.0),
    *(1.0, 1.0, 1.0, None, 1.0, None, None),
)


@pytest.mark.parametrize(
    "draw", [of_a_batch, of_confusion, of_curves, of_an_export, of_a_benchmark]
)
def test_where_we_write_no_formulas_none_is_read(draw, name, tmp_path, monkeypatch):
    def parse(*arguments):
        pytest.fail("a name has been taken for a formula")

    monkeypatch.setattr(MathTextParser, "parse", parse)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        drawn = draw(name, tmp_path) if draw is of_curves else draw(name)
    picture = Image.open(io.BytesIO(drawn))
    assert np.ptp(np.asarray(picture.convert("L"))) > 200
    assert matplotlib.rcParams["text.parse_math"] is True


def runs(name, *depths):
    errors = np.array([[[0.5, 0.4]], [[0.6, 0.5]]])
    return [GroupCurves(name, name, depth, TICKS, *errors) for depth in depths]


BESIDE_FORMULAS = {
    "curves": lambda name: curve_figures.draw_curves(runs(name, 20, 20), name),
    "final errors": lambda name: curve_figures.draw_final_errors(runs(name, 20, 20), name),
    "errors by depth": lambda name: curve_figures.draw_final_errors(runs(name, 20, 56), name),
    "over training": lambda name: training_figures.draw(
        TICKS, [name, "a", "b"], np.ones((2, 3)), name, name, False
    ),
    "initialisation": lambda name: initialisation_study.draw([initialisation(name, 20, 3)], name),
    "beside": lambda name: gradient_figures.draw_beside([(name, backward(3))] * 2, name),
    "signals": lambda name: signal_figures.draw_signals(forward(3), name),
    "gradient": lambda name: propagation_pictures.gradient(backward(3), name),
}


@pytest.mark.parametrize("draw", BESIDE_FORMULAS.values(), ids=BESIDE_FORMULAS)
def test_beside_our_formulas_names_stay_as_they_are(draw, name, monkeypatch):
    parse, parsed = MathTextParser.parse, []

    def parse_and_tell(self, text, *arguments, **options):
        parsed.append(text)
        return parse(self, text, *arguments, **options)

    monkeypatch.setattr(MathTextParser, "parse", parse_and_tell)
    assert draw(name).startswith(b"\x89PNG")
    assert not any(name in text for text in parsed)


def test_the_page_shows_a_name_as_text(name):
    picture = page.Figure("a", name, name, of_a_batch("a"), name, [EQUATIONS[4]])
    table = page.Table(name, (name,), [(name,)], name)
    shown = page.html(name, {name: name}, [picture], [table]).decode()
    assert "<script" not in shown


CAPTIONS = {
    "beside": lambda name: gradient_figures.beside_caption(
        [(name, backward(3)), ("b", dataclasses.replace(backward(3), output_gradient_norm=2.0))]
    ),
    "curves": lambda name: curve_figures.curves_caption(
        [runs(name, 20)[0], GroupCurves("b", "b", 20, TICKS, *np.full((2, 1, 2), 0.9))]
    ),
    "final errors": lambda name: curve_figures.final_errors_caption(runs(name, 20, 56)),
    "initialisation": lambda name: initialisation_study.caption(
        [initialisation(name, 20, 3), initialisation("b", 20, 3, seed=4)]
    ),
}


@pytest.mark.parametrize("caption", CAPTIONS.values(), ids=CAPTIONS)
def test_the_captions_show_a_name_as_text(caption, name):
    shown = caption(name)
    assert escape(name) in shown
    assert "<script" not in shown and shown.count("<math>") == shown.count("</math>")


def test_the_csv_has_a_name_in_one_field(name):
    written = output.csv_bytes([({"network": name}, [name], {"x": np.array([1])})]).decode()
    rows = list(csv.reader(io.StringIO(written, newline="")))
    assert rows == [["network", "unit", "x"], [name, name, "1"]]


FACTS = {
    "version": 3,
    "data": {"class_names": ["a", "b"], "image_shape": [8, 8, 3]},
    "evaluation": {"images": 4, "available": 5},
    "created": "today",
    "machine": "abacus, 1 core",
    "rewriting": [],
    "serving_bytes": {"images": 0, "max_difference": None},
    "tried_server": "a server",
    "is_labelled": True,
    "commands": {},
}


def test_the_report_of_an_export_shows_a_name_as_text_in_its_line(name):
    def report(name):
        named = {"source": name, "model": {"name": name}, "data": {**FACTS["data"], "name": name}}
        return export_report.to_markdown({**FACTS, **named}, []).decode()

    shown, lines = report(name), report("a").splitlines()
    assert len(shown.splitlines()) == len(lines)
    assert shown.replace("\n", "").isprintable() or "\N{VARIATION SELECTOR-16}" in name
    for sign in "<|`*":
        assert f"\\{sign}" in shown or sign not in name
        assert not re.search(rf"(?<!\\){re.escape(sign)}", shown.splitlines()[0])


def test_no_picture_is_drawn_without_the_rule_for_names():
    package = pathlib.Path(keras_preact.__file__).parent
    made = [p.name for p in package.rglob("*.py") if "FigureCanvasAgg(" in p.read_text()]
    assert made == ["plotting.py"]
