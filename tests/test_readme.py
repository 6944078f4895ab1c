"""The README says what is so."""

import dataclasses
import pathlib
import re

import pytest

from keras_preact.benchmark.config import BenchmarkConfig
from keras_preact.exporting import ExportConfig
from keras_preact.studies.config import AnalysisConfig
from keras_preact.training import TrainConfig

ROOT = pathlib.Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()
PYTHON_BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def table_row(first_cell):
    [row] = re.findall(rf"^\| {re.escape(first_cell)} \|(.*)\|$", README, re.MULTILINE)
    return re.findall(r"`(\w+)`", row)


def test_the_table_of_flags_is_complete():
    fields = dataclasses.fields(TrainConfig)
    for group in {field.metadata["group"]: None for field in fields}:
        flags = [field.name for field in fields if field.metadata["group"] == group]
        assert table_row(group) == flags
    for program, config in (
        ("export.py", ExportConfig),
        ("keras_preact.benchmark", BenchmarkConfig),
        ("keras_preact.analysis", AnalysisConfig),
    ):
        assert table_row(program) == [field.name for field in dataclasses.fields(config)]


@pytest.mark.parametrize("code", PYTHON_BLOCKS, ids=range(len(PYTHON_BLOCKS)))
def test_the_python_examples_run(code):
    exec(compile(code, "README.md", "exec"), {})


def test_every_recipe_and_picture_that_is_named_exists():
    recipes = set(re.findall(r"`(\w+_resnet\d+)`", README))
    assert len(recipes) == len(list((ROOT / "configs").glob("*_resnet*.flags")))
    for recipe in recipes:
        assert (ROOT / "configs" / f"{recipe}.flags").exists()
    for path in re.findall(r"\]\(([\w./]+)\)", README):
        assert (ROOT / path).exists()
