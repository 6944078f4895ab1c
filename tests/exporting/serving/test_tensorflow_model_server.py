"""Exports on the real server where there is one, and on a mock that shares its ways."""

import base64
import collections
import contextlib
import json
import pathlib
import re
import shutil
import sys
import threading

import fake_serving
import numpy as np
import pytest
from real_server import PROGRAM, Server, started

from keras_preact.exporting.serving import client

NAME = "resnet8"
PROGRAMS = [PROGRAM, pytest.param("a mock program", marks=pytest.mark.slow)]
IMAGE_SIGNATURES = ("serving_default", "serving_float32", "features")
# Of an export of scikit-learn's digits.
SHAPE = (8, 8, 1)
OTHER_SHAPES = [(8, 8), (16, 16, 1), (64, 64, 1), (8, 8, 2), (8, 7, 1), (64,), (), (1, 8, 8, 1)]


def find_program(kind, folder):
    """The real server if there is one; a mock shows that these tests can pass."""
    if kind == PROGRAM:
        return shutil.which(PROGRAM) or pytest.skip(f"{PROGRAM} is not on the PATH")
    path = folder / PROGRAM
    program = pathlib.Path(fake_serving.__file__).with_name("fake_model_server.py")
    path.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{program}" "$@"\n')
    path.chmod(0o755)
    return str(path)


@pytest.fixture(scope="module", params=[*PROGRAMS, "a mock in this process"])
def server(request, digits_export, tmp_path_factory):
    """A server that has loaded the export."""
    folder = tmp_path_factory.mktemp("served")
    if request.param == "a mock in this process":
        servable = fake_serving.Servable(NAME, digits_export / "saved_model" / "1")
        with fake_serving.serve(servable) as running:
            yield Server(running.ports, NAME)
        return
    with started(find_program(request.param, folder), digits_export, NAME, folder) as server:
        yield server


@pytest.fixture(scope="module")
def jpeg(digits_export):
    return (digits_export / "serving" / "example.jpg").read_bytes()


@pytest.fixture(scope="module")
def image(digits_export):
    request = json.loads((digits_export / "serving" / "request_images.json").read_text())
    return np.array(request["instances"][0])


def of_images(signature, *images):
    return {"signature_name": signature, "instances": [image.tolist() for image in images]}


def of_files(*files):
    rows = [{"image_bytes": {"b64": base64.b64encode(file).decode()}} for file in files]
    return {"signature_name": "serving_bytes", "instances": rows}


def test_the_server_answers_the_samples_and_the_client(digits_export, server, capsys, tmp_path):
    servable = fake_serving.Servable(NAME, digits_export / "saved_model" / "1")
    for sample in ("request_images.json", "request_bytes.json"):
        body = (digits_export / "serving" / sample).read_bytes()
        [expected] = servable.predict_rows(NAME, body)["predictions"]
        status, answer = server.post(body)
        assert status == 200
        [row] = answer["predictions"]
        assert row["classes"] == expected["classes"]
        for output in ("scores", "probabilities"):
            np.testing.assert_allclose(row[output], expected[output], atol=1e-4)
    example, broken = digits_export / "serving" / "example.jpg", tmp_path / "broken.jpg"
    broken.write_text("not an image")
    scores = zip(expected["classes"], expected["scores"], strict=True)
    line = f"{example}: " + ", ".join(f"{name} {score:.1%}" for name, score in scores)
    for protocol, port in server.ports.items():
        arguments = [f"--model={NAME}", f"--port={port}", f"--protocol={protocol}"]
        with pytest.raises(SystemExit) as stop:
            client.main([*arguments, str(example), str(broken)])
        output, errors = capsys.readouterr()
        assert (stop.value.code, output) == (2, line + "\n")
        assert errors.startswith(f"Error: {broken} was refused by the server: image_bytes must be ")


def test_the_server_knows_no_model_of_another_name(digits_export, server, capsys):
    for protocol, port in server.ports.items():
        arguments = ["--model=other", f"--port={port}", f"--protocol={protocol}"]
        with pytest.raises(SystemExit) as stop:
            client.main([*arguments, str(digits_export / "serving" / "example.jpg")])
        assert stop.value.code == 1
        assert " answered " in capsys.readouterr().err


@pytest.mark.parametrize("signature", IMAGE_SIGNATURES)
def test_images_of_another_shape_are_refused_and_the_server_lives(server, image, signature):
    expected = server.post(of_images(signature, image))
    assert expected[0] == 200
    for shape in OTHER_SHAPES:
        status, answer = server.post(of_images(signature, np.zeros(shape, int)))
        assert status == 400, shape
        received = ",".join(map(str, (1, *shape)))
        assert f"[{received}] is not compatible with expected shape [?,8,8,1]" in answer["error"]
    assert server.post(of_images(signature, image)) == expected
    assert server.lives()


@pytest.mark.parametrize("nested", [[[]], [[{"b64": "YQ=="}]], [[[{"b64": "YQ=="}]]]])
def test_so_are_files_in_a_list_of_lists(server, jpeg, nested):
    status, _ = server.post({"signature_name": "serving_bytes", "instances": nested})
    assert status == 400
    assert server.post(of_files(jpeg))[0] == 200
    assert server.lives()


def test_a_broken_file_has_an_error_of_its_own_and_no_answer(server, jpeg):
    status, answer = server.post(of_files(jpeg, b"text", jpeg[: len(jpeg) // 2], jpeg))
    assert status == 200
    good, text, half, again = answer["predictions"]
    assert good == again
    assert good["error"] == "" and sum(good["probabilities"]) == pytest.approx(1, abs=1e-5)
    assert text["error"].startswith("image_bytes must be JPEG or PNG files. Received another kind")
    assert half["error"].startswith("An image file must be whole and undamaged. Received: a file ")
    for row in (text, half):
        assert set(row["probabilities"]) == set(row["scores"]) == {0.0}
        assert set(row["classes"]) == {""}


def outcomes(server, body, others, requests=120, clients=4):
    """Counts the answers of some clients, while another one sends the other bodies in turn."""
    statuses, done = collections.Counter(), threading.Event()

    def ask():
        for _ in range(requests // clients):
            status, answer = server.post(body)
            bad = status != 200 or any(row["error"] for row in answer["predictions"])
            statuses["failed" if bad else "answered"] += 1

    def disturb():
        while not done.is_set():
            for other in others:
                server.post(other)

    threads = [threading.Thread(target=ask) for _ in range(clients)]
    disturber = threading.Thread(target=disturb)
    disturber.start()
    with contextlib.ExitStack() as stack:
        stack.callback(disturber.join)
        stack.callback(done.set)
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    return statuses


def test_broken_files_of_strangers_fail_no_request_of_mine(server, jpeg):
    broken = [of_files(b"text"), of_files(jpeg[: len(jpeg) // 2]), of_files(b"", jpeg)]
    assert outcomes(server, of_files(jpeg), broken) == {"answered": 120}


def test_numbers_in_json_wrap_around_in_uint8_and_do_not_in_float32(server, image):
    beyond, within = np.full(SHAPE, 300), np.full(SHAPE, 300 - 256)
    of_default = [server.post(of_images("serving_default", each))[1] for each in (beyond, within)]
    assert of_default[0] == of_default[1]
    of_float32 = [server.post(of_images("serving_float32", each))[1] for each in (beyond, within)]
    assert of_float32[0] != of_float32[1] == of_default[1]


def test_the_server_counts_requests_for_prometheus(server, jpeg):
    assert server.post(of_files(jpeg))[0] == 200
    assert "request" in server.get("/monitoring/prometheus/metrics")


LABELS = pathlib.Path(__file__).parents[3] / "docs" / "export.md"
LABELS_FLAG = "--allow_version_labels_for_unavailable_models"


def add_labelled_version(copy):
    """A second version, and the configuration of labels in the documentation."""
    shutil.copytree(copy / "saved_model" / "1", copy / "saved_model" / "2")
    [config] = re.findall(
        r"```text\n(model_config_list \{.*?\n\}\n)```", LABELS.read_text(), re.DOTALL
    )
    (copy / "serving" / "models.config").write_text(config.replace("resnet20", NAME))


@pytest.mark.parametrize("kind", PROGRAMS)
def test_versions_are_asked_by_their_labels(kind, digits_export, tmp_path, capsys):
    program, example = find_program(kind, tmp_path), digits_export / "serving" / "example.jpg"
    options = {"prepare": add_labelled_version}
    with started(program, digits_export, NAME, tmp_path, LABELS_FLAG, **options) as server:
        for protocol, port in server.ports.items():
            arguments = [f"--model={NAME}", f"--port={port}", f"--protocol={protocol}"]
            outputs = []
            for label in ("stable", "canary", "unknown"):
                with pytest.raises(SystemExit) as stop:
                    client.main([*arguments, f"--label={label}", str(example)])
                outputs.append((stop.value.code, capsys.readouterr()))
            stable, canary, unknown = outputs
            assert stable == canary
            assert stable[0] == 0 and "%" in stable[1].out
            assert unknown[0] == 2
            assert unknown[1].err.endswith("Unrecognized servable version label: unknown\n")


@pytest.mark.parametrize("kind", PROGRAMS)
def test_the_parameters_for_a_gpu_are_accepted(kind, digits_export, tmp_path, jpeg):
    def use_them(copy):
        folder = copy / "serving"
        (folder / "batching_parameters.gpu.txt").rename(folder / "batching_parameters.txt")

    program = find_program(kind, tmp_path)
    with started(program, digits_export, NAME, tmp_path, prepare=use_them) as server:
        assert server.post(of_files(jpeg))[0] == 200
