"""The files of an export's folder `serving`, tried on the real server."""

import contextlib
import json
import pathlib
import shutil
import socket
import subprocess
import sys
import time
import urllib.request

import fake_serving
import numpy as np
import pytest

from keras_preact.exporting.serving import client, server_files

SERVER = "tensorflow_model_server"
NAME = "resnet8"
START_SECONDS = 180


@pytest.fixture(
    scope="module", params=[SERVER, pytest.param("a mock server", marks=pytest.mark.slow)]
)
def executable(request, tmp_path_factory):
    """The real server if there is one; a mock server shows that these tests can pass."""
    if request.param == SERVER:
        return shutil.which(SERVER) or pytest.skip(f"{SERVER} is not on the PATH")
    path = tmp_path_factory.mktemp("bin") / SERVER
    program = pathlib.Path(fake_serving.__file__).with_name("fake_model_server.py")
    path.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{program}" "$@"\n')
    path.chmod(0o755)
    return str(path)


def free_ports():
    with contextlib.ExitStack() as stack:
        listeners = [socket.create_server(("127.0.0.1", 0)) for _ in client.PORTS]
        for listener in listeners:
            stack.enter_context(listener)
        ports = [listener.getsockname()[1] for listener in listeners]
    return dict(zip(client.PORTS, ports, strict=True))


def is_available(port):
    try:
        url = f"http://127.0.0.1:{port}/v1/models/{NAME}"
        with urllib.request.urlopen(url, timeout=10) as response:
            versions = json.load(response)["model_version_status"]
    except OSError:
        return False
    return any(version["state"] == "AVAILABLE" for version in versions)


def wait_for(server, port, log):
    deadline = time.monotonic() + START_SECONDS
    while not is_available(port):
        assert server.poll() is None, f"the server has stopped:\n{log.read_text()[-5000:]}"
        assert time.monotonic() < deadline, f"the server does not serve:\n{log.read_text()[-5000:]}"
        time.sleep(0.2)


@pytest.fixture(scope="module")
def ports(digits_export, executable, tmp_path_factory):
    """Ports, by protocol, of a server that has loaded the export."""
    # The export as it is served, but not at /models/NAME.
    folder = tmp_path_factory.mktemp("served") / NAME
    shutil.copytree(digits_export, folder)
    config = folder / "serving" / "models.config"
    config.write_text(config.read_text().replace(f"/models/{NAME}/", f"{folder}/"))
    ports, log = free_ports(), folder.parent / "server.log"
    flags = server_files.server_flags(str(folder), grpc_port=ports["grpc"], rest_port=ports["rest"])
    with log.open("w") as output:
        server = subprocess.Popen([executable, *flags], stdout=output, stderr=subprocess.STDOUT)
    try:
        wait_for(server, ports["rest"], log)
        yield ports
    finally:
        server.kill()
        server.wait()


def post(port, body):
    url = f"http://127.0.0.1:{port}/v1/models/{NAME}:predict"
    with urllib.request.urlopen(url, data=body, timeout=60) as response:
        [row] = json.load(response)["predictions"]
    return row


def test_the_server_answers_the_samples_and_the_client(digits_export, ports, capsys, tmp_path):
    servable = fake_serving.Servable(NAME, digits_export / "saved_model" / "1")
    for sample in ("request_images.json", "request_bytes.json"):
        body = (digits_export / "serving" / sample).read_bytes()
        [expected] = servable.predict_rows(NAME, body)["predictions"]
        row = post(ports["rest"], body)
        assert row["classes"] == expected["classes"]
        for output in ("scores", "probabilities"):
            np.testing.assert_allclose(row[output], expected[output], atol=1e-4)
    example, broken = digits_export / "serving" / "example.jpg", tmp_path / "broken.jpg"
    broken.write_text("not an image")
    scores = zip(expected["classes"], expected["scores"], strict=True)
    line = f"{example}: " + ", ".join(f"{name} {score:.1%}" for name, score in scores)
    for protocol, port in ports.items():
        arguments = [f"--model={NAME}", f"--port={port}", f"--protocol={protocol}"]
        with pytest.raises(SystemExit) as stop:
            client.main([*arguments, str(example), str(broken)])
        output, errors = capsys.readouterr()
        assert (stop.value.code, output) == (2, line + "\n")
        assert errors.startswith(f"Error: {broken} was refused by the server: ")


def test_the_server_knows_no_model_of_another_name(digits_export, ports, capsys):
    for protocol, port in ports.items():
        arguments = ["--model=other", f"--port={port}", f"--protocol={protocol}"]
        with pytest.raises(SystemExit) as stop:
            client.main([*arguments, str(digits_export / "serving" / "example.jpg")])
        assert stop.value.code == 1
        assert " answered " in capsys.readouterr().err
