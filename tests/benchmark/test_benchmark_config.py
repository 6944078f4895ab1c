import dataclasses
import importlib.util

import pytest

from keras_preact.benchmark.config import BenchmarkConfig


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def only_installed(monkeypatch):
    """Pretends that the given modules alone are installed."""

    def pretend(*modules):
        find = lambda module: module if module in modules else None  # noqa: E731
        monkeypatch.setattr(importlib.util, "find_spec", find)

    return pretend


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"models": ()}, "models must be one or more, each once. Received: models="),
        ({"models": (20, 20)}, "models must be one or more, each once. Received: models=20,20"),
        ({"models": (20, 21)}, "models must be depths of networks: .*6n\\+2.*depth=21"),
        ({"precisions": ("bfloat16",)}, "mixed_bfloat16.*Received: precisions='bfloat16'"),
        ({"modes": ("train", "predict")}, "train, inference.*Received: modes='predict'"),
        (
            {"modes": ("serving",), "precisions": ("mixed_bfloat16",)},
            "name float32.*Received: prec",
        ),
        ({"frameworks": ("keras", "jax")}, "keras_preact, keras, torch.*frameworks='jax'"),
        ({"batch_size": 0}, "batch_size must be at least 1 .* Received: batch_size=0"),
        ({"image_size": -1}, "image_size must be at least 1 .* Received: image_size=-1"),
        ({"rounds": 0}, "rounds must be at least 1 .* Received: rounds=0"),
        ({"steps": 2**31}, "steps must be .* at most 100000. Received: steps=2147483648"),
        ({"rounds": 1001}, "rounds must be .* at most 1000. Received: rounds=1001"),
        ({"batch_size": 2**31}, "batch_size must be .* at most 2147483647. Received: batch_size="),
        ({"csv": "no/such/folder.csv"}, "a folder that exists. Received: csv=no/such/folder.csv"),
        ({"csv": ""}, "csv must not be empty. Received: csv=''"),
        ({"csv": "s3://bucket/figures.csv"}, "csv must be a path .* Mount it with mountpoint-s3"),
        ({"plot": "a\nb.png"}, "plot must have no line breaks .* plot='a.nb.png'"),
        ({"plot": "picture.jpg"}, "ends in .png, .* Received: plot=picture.jpg"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_wrong_values_are_refused_with_the_rule_and_what_was_received(wrong, words):
    with pytest.raises(ValueError, match=words):
        BenchmarkConfig(**wrong)


def test_a_folder_is_not_a_file(tmp_path):
    (tmp_path / "figures.csv").mkdir()
    with pytest.raises(ValueError, match="csv must be a file"):
        BenchmarkConfig(csv="figures.csv")


def test_pytorch_is_measured_where_it_is_installed(only_installed):
    only_installed("keras", "torch")
    assert BenchmarkConfig().chosen_frameworks == ("keras_preact", "keras", "torch")


def test_pytorch_is_left_out_where_it_is_missing_and_refused_when_asked_for(only_installed):
    only_installed("keras")
    assert BenchmarkConfig().chosen_frameworks == ("keras_preact", "keras")
    with pytest.raises(ValueError, match=r"pip install torch"):
        BenchmarkConfig(frameworks=("keras_preact", "torch"))


def test_a_picture_is_refused_without_matplotlib(only_installed):
    only_installed("keras")
    with pytest.raises(ValueError, match="plot needs matplotlib"):
        BenchmarkConfig(plot="picture.png")


def test_every_field_has_a_help_text_and_a_group():
    for field in dataclasses.fields(BenchmarkConfig):
        assert field.metadata["help"] and field.metadata["group"]
