import argparse
import csv
import json
import pathlib
import re
import shlex
import subprocess
import types
import urllib.request

import colour_model
import fake_serving
import numpy as np
import pytest
import tensorflow as tf
from google.protobuf import text_format
from tensorflow_serving.config import model_server_config_pb2

from keras_preact.exporting.serving import server_files

IMAGE = np.full(colour_model.IMAGE_SHAPE, (200, 10, 90), np.uint8)
JPEG = tf.io.encode_jpeg(np.full((50, 70, 3), (200, 10, 90), np.uint8), quality=100).numpy()


@pytest.fixture(scope="module")
def files():
    return server_files.files("digits-1.b", IMAGE, JPEG)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    version = tmp_path_factory.mktemp("model") / "1"
    colour_model.write(version)
    with fake_serving.serve(fake_serving.Servable("digits-1.b", version)) as running:
        yield running


def test_the_config_names_one_model_and_the_folder_of_its_versions(files):
    config = text_format.Parse(
        files["models.config"].decode(), model_server_config_pb2.ModelServerConfig()
    )
    [model] = config.model_config_list.config
    assert model.name == "digits-1.b"
    assert model.base_path == "/models/digits-1.b/saved_model"
    assert model.model_platform == "tensorflow"
    assert not model.HasField("model_version_policy"), "the server's default: the newest"


def test_the_batching_parameters_are_ones_the_server_knows(files):
    parameters = fake_serving.parse_batching_parameters(files["batching_parameters.txt"].decode())
    assert parameters.max_batch_size.value == 32
    assert parameters.batch_timeout_micros.value == 0
    assert parameters.max_enqueued_batches.value > 0
    # Padding costs a CPU as much as images do; threads are the server's own choice.
    assert list(parameters.allowed_batch_sizes) == []
    assert not parameters.HasField("num_batch_threads")


def test_those_for_a_gpu_fill_batches_up_to_a_few_sizes(files):
    parameters = fake_serving.parse_batching_parameters(
        files["batching_parameters.gpu.txt"].decode()
    )
    # The server demands that they ascend and end with the largest.
    sizes = list(parameters.allowed_batch_sizes)
    assert sizes == sorted(set(sizes)) and sizes[0] == 1
    assert sizes[-1] == parameters.max_batch_size.value == 32
    assert 0 < parameters.batch_timeout_micros.value <= 10_000


def test_the_image_can_be_chosen():
    name = "registry.example.org:5000/tensorflow/serving:2.20.0-gpu"
    compose = server_files.files("digits", IMAGE, JPEG, name)["compose.yaml"].decode()
    assert f"image: {name}\n" in compose
    assert f" {name} " in server_files.docker_command("digits", "/runs/a", name)


@pytest.mark.parametrize("name", ["", "a b", "a\nb", "a'b", "$HOME", "--help"])
def test_an_image_that_a_shell_would_change_is_refused(name):
    with pytest.raises(ValueError, match=r"serving_image must be .* Received: serving_image="):
        server_files.check_serving_image(name)


@pytest.mark.parametrize("name", ["request_images.json", "request_bytes.json"])
def test_a_sample_posted_as_it_is_gets_an_answer(files, server, name):
    url = f"http://127.0.0.1:{server.ports['rest']}/v1/models/digits-1.b:predict"
    with urllib.request.urlopen(url, data=files[name], timeout=60) as response:
        [row] = json.load(response)["predictions"]
    expected = colour_model.expected_answer(IMAGE)
    assert row["classes"] == [name for name, _ in expected]
    # JPEG is not exact.
    np.testing.assert_allclose(row["scores"], [score for _, score in expected], atol=0.02)


def test_the_example_is_the_image_of_the_requests(files):
    assert files["example.jpg"] == JPEG
    assert json.loads(files["request_images.json"])["instances"] == [IMAGE.tolist()]


def parse_docker(command):
    """A docker command parsed as docker does it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("words", nargs=2)
    for flag in ("--rm", "--init"):
        parser.add_argument(flag, action="store_true")
    parser.add_argument("-p", action="append")
    parser.add_argument("--mount")
    parser.add_argument("--entrypoint")
    words = shlex.split(command)
    image = words.index(server_files.IMAGE)
    options = parser.parse_args(words[:image])
    assert options.words == ["docker", "run"]
    [row] = csv.reader([options.mount])
    mount = {field.partition("=")[0]: field.partition("=")[2] for field in row}
    return options, mount, words[image + 1 :]


@pytest.mark.parametrize("folder", ["/runs/a", "/runs/it's lr=0.1,wd=1e-4/12:30", '/a "b" $HOME/é'])
def test_the_docker_command_mounts_the_export_whatever_its_path(folder):
    options, mount, flags = parse_docker(server_files.docker_command("digits", folder))
    target = "/models/digits"
    assert mount == {"type": "bind", "source": folder, "target": target, "readonly": ""}
    assert options.p == ["8500:8500", "8501:8501"]
    assert (options.entrypoint, options.init, options.rm) == ("tensorflow_model_server", True, True)
    assert flags == [
        "--port=8500",
        "--rest_api_port=8501",
        "--model_config_file=/models/digits/serving/models.config",
        "--enable_batching",
        "--batching_parameters_file=/models/digits/serving/batching_parameters.txt",
        "--monitoring_config_file=/models/digits/serving/monitoring.config",
    ]


def test_the_docker_command_works_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    _, mount, _ = parse_docker(server_files.docker_command("digits", "runs/export"))
    assert pathlib.Path(mount["source"]) == tmp_path / "runs" / "export"


def compose_value(files, key):
    """The value on a key's line; lists are JSON, as YAML allows."""
    value = re.search(rf"^ *{key}: (.*)$", files["compose.yaml"].decode(), re.MULTILINE)[1]
    return json.loads(value) if value.startswith("[") else value


def test_the_compose_file_starts_what_the_docker_command_starts(files):
    options, mount, flags = parse_docker(server_files.docker_command("digits-1.b", "/any"))
    assert compose_value(files, "image") == server_files.IMAGE
    assert compose_value(files, "entrypoint") == [options.entrypoint]
    assert compose_value(files, "command") == flags
    assert compose_value(files, "ports") == options.p
    assert compose_value(files, "target") == mount["target"]
    assert compose_value(files, "read_only") == "true"
    assert compose_value(files, "source") == "..", "the export, seen from the file's folder"


def check_health(files, port):
    [kind, *command] = compose_value(files, "test")
    assert kind == "CMD"
    command[-1] = command[-1].replace("/8501", f"/{port}")
    return subprocess.run(command, capture_output=True, timeout=30).returncode == 0


def test_the_health_check_tells_a_loaded_model_from_none(files, server):
    port = server.ports["rest"]
    assert check_health(files, port)
    assert not check_health(server_files.files("another", IMAGE, JPEG), port)
    assert not check_health(files, 9), "nothing listens there"


@pytest.mark.parametrize("error_code", ["OK", "UNAVAILABLE"])
def test_a_model_that_is_not_loaded_is_not_healthy(files, error_code):
    loading = types.SimpleNamespace(
        name="digits-1.b", state="LOADING", error_code=error_code, batch_sizes=[]
    )
    with fake_serving.serve(loading) as running:
        assert not check_health(files, running.ports["rest"])


@pytest.mark.parametrize("name", ["", "a b", "a/b", "a:b", 'a"b', ".a", "é", "a\n"])
def test_a_name_that_paths_or_urls_would_change_is_refused(name):
    with pytest.raises(ValueError, match=r"model_name must begin .* Received: model_name="):
        server_files.files(name, IMAGE, JPEG)
    with pytest.raises(ValueError, match="model_name must begin"):
        server_files.docker_command(name, "/runs/a")
