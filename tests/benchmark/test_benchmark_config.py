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


def load(**options):
    """A benchmark of a server, with some other options."""
    return {"server": "/bin/true", "modes": ("server",), **options}


def overhead(**options):
    """A benchmark of overhead, with some other options."""
    return {"modes": ("overhead",), **options}


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"models": ()}, "models must be one or more, each once. Received: models="),
        ({"models": (20, 20)}, "models must be one or more, each once. Received: models=20,20"),
        ({"models": (20, 21)}, "models must be depths of networks: .*6n\\+2.*depth=21"),
        ({"precisions": ("bfloat16",)}, "mixed_bfloat16.*Received: precisions='bfloat16'"),
        ({"modes": ("train", "predict")}, "train, inference.*Received: modes='predict'"),
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
        ({"server": "/bin/true"}, "server goes with --modes=server. Received: server='/bin/true'"),
        ({"modes": ("server",)}, "server must be the path of a program .* Received: server=''"),
        (load(server="missing"), "that you may start, .* Received: server='missing'"),
        (load(server="/"), "that you may start, .* Received: server='/'"),
        (load(modes=("server", "train")), "server alone .* Received: modes=server,train"),
        (load(modes=("serving", "server")), "server alone .* Received: modes=serving,server"),
        (load(frameworks=("torch",)), "keras_preact or keras .* Received: frameworks=torch"),
        (load(batch_size=8), "batch_size must be 1 .* Received: batch_size=8"),
        (load(plot="picture.png"), "plot draws images/s, .* --csv. Received: plot=picture.png"),
        (load(clients=(1, 0)), "clients must be numbers from 1 to 1000, .* clients=1,0"),
        (load(clients=(1001,)), "clients must be numbers from 1 to 1000, .* clients=1001"),
        (load(clients=(8, 8)), "clients must be one or more, each once. Received: clients=8,8"),
        (load(clients=()), "clients must be one or more, each once. Received: clients="),
        (load(seconds=0), "seconds must be at least 1 .* Received: seconds=0"),
        (load(seconds=3601), "seconds must be .* at most 3600. Received: seconds=3601"),
        (load(broken_clients=-1), "broken_clients must be at least 0 .* broken_clients=-1"),
        (load(broken_clients=1001), "broken_clients must be .* at most 1000. Received: broken_"),
        (load(batching=("none", "missing")), "written, none or files .* batching='missing'"),
        (load(batching=("/etc",)), "written, none or files .* Received: batching='/etc'"),
        (load(batching=("",)), "batching must not be empty"),
        ({"modes": ("overhead", "train")}, "overhead alone .* Received: modes=overhead,train"),
        (overhead(frameworks=("keras_preact", "keras")), "keras_preact with .*keras_preact,keras"),
        (overhead(plot="picture.png"), "plot draws images/s, .* --csv. Received: plot=picture.png"),
        ({"xla": "yes"}, "xla must be one of auto, on, off. Received: xla='yes'"),
        ({"plot": "picture.jpg"}, "ends in .png, .* Received: plot=picture.jpg"),
    ],
    ids=lambda value: list(value)[-1] if isinstance(value, dict) else "",
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
    assert BenchmarkConfig().chosen_frameworks == (
        *("keras_preact", "keras", "torch", "torch_compile"),
    )


@pytest.mark.parametrize("framework", ["torch", "torch_compile"])
def test_pytorch_is_left_out_where_it_is_missing_and_refused_when_asked_for(
    only_installed, framework
):
    only_installed("keras")
    assert BenchmarkConfig().chosen_frameworks == ("keras_preact", "keras")
    with pytest.raises(ValueError, match=rf"keras_preact,{framework}; pip install torch"):
        BenchmarkConfig(frameworks=("keras_preact", framework))


def test_a_picture_is_refused_without_matplotlib(only_installed):
    only_installed("keras")
    with pytest.raises(ValueError, match="plot needs matplotlib"):
        BenchmarkConfig(plot="picture.png")


def test_a_server_is_a_path_or_a_name_on_the_path(tmp_path, monkeypatch):
    assert BenchmarkConfig(**load()).program == "/bin/true"
    (tmp_path / "here").write_text("#!/bin/sh")
    (tmp_path / "here").chmod(0o755)
    assert BenchmarkConfig(**load(server="./here")).program == "./here"
    (tmp_path / "text").touch(mode=0o644)
    with pytest.raises(ValueError, match=r"that you may start, .* Received: server='./text'"):
        BenchmarkConfig(**load(server="./text"))
    monkeypatch.setenv("PATH", str(tmp_path))
    assert BenchmarkConfig(**load(server="here")).program == str(tmp_path / "here")


def test_batching_parameters_may_be_a_file_of_ones_own(tmp_path):
    (tmp_path / "mine.txt").touch()
    assert BenchmarkConfig(**load(batching=("mine.txt", "written"))).measures_server


def test_every_field_has_a_help_text_and_a_group():
    for field in dataclasses.fields(BenchmarkConfig):
        assert field.metadata["help"] and field.metadata["group"]
