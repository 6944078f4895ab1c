"""Servers start, answer, and are gone at the end, with all that they have started."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
import stub_server
from stub_server import alive

from keras_preact.benchmark.server import model_server
from keras_preact.benchmark.server.model_server import ServerError
from keras_preact.exporting.serving import server_files

REQUEST = b'{"instances": [1]}'


@pytest.fixture
def stub(tmp_path):
    """Writes a program around the stub, with some of its own flags."""

    def make(**flags):
        path, flags = tmp_path / "stub", {"record": tmp_path / "record", **flags}
        words = " ".join(f"--{name}={value}" for name, value in flags.items())
        path.write_text(f'#!/bin/sh\nexec {sys.executable} {stub_server.__file__} {words} "$@"\n')
        path.chmod(0o755)
        return str(path)

    return make


@pytest.fixture
def export(tmp_path):
    folder = tmp_path / "export"
    folder.mkdir()
    model_server.write_config(folder)
    return folder


def recorded(tmp_path):
    """What the last stub has recorded: pids and flags."""
    return json.loads((tmp_path / "record").read_text().splitlines()[-1])


def wait_until_gone(pids):
    deadline = time.monotonic() + 30
    while alive(pids) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not alive(pids)


def test_a_server_has_answered_when_it_is_handed_on_and_is_gone_at_the_end(stub, export, tmp_path):
    with model_server.start(stub(delay=0.5), export, None, REQUEST) as server:
        server.check()
        pids = recorded(tmp_path)["pids"]
        assert server.pid == pids[0] and alive(pids) == pids
        assert 0.5 < server.first_answer_seconds < 30
    assert not alive(pids)
    assert "a stub listens" in server.log.read_text()


def test_a_server_is_gone_after_an_error_too(stub, export, tmp_path):
    with pytest.raises(KeyboardInterrupt), model_server.start(stub(), export, None, REQUEST):
        raise KeyboardInterrupt
    assert not alive(recorded(tmp_path)["pids"])


def test_the_flags_are_those_of_an_export_with_and_without_batching(stub, export, tmp_path):
    config = f"--model_config_file={export}/serving/models.config"
    metrics = f"--monitoring_config_file={export}/serving/monitoring.config"
    with model_server.start(stub(), export, None, REQUEST) as server:
        assert recorded(tmp_path)["flags"] == [f"--port={server.ports['grpc']}", config, metrics]
    with model_server.start(stub(), export, "max_batch_size { value: 4 }", REQUEST) as server:
        path = export / "serving" / "batching_parameters.txt"
        batching = ["--enable_batching", f"--batching_parameters_file={path}"]
        expected = [config, *batching, metrics]
        assert recorded(tmp_path)["flags"][1:] == expected
        assert path.read_text() == "max_batch_size { value: 4 }"
    assert f'base_path: "{export}/saved_model"' in (export / "serving/models.config").read_text()


def test_a_program_that_ends_at_once_is_shown_with_its_last_line(tmp_path, export):
    program = tmp_path / "program"
    program.write_text("#!/bin/sh\necho first >&2\necho unknown flag: $1\nexit 3\n")
    program.chmod(0o755)
    with (
        pytest.raises(ServerError, match="has stopped: exit code 3: unknown flag: --port") as error,
        model_server.start(str(program), export, None, REQUEST),
    ):
        pass
    assert error.value.output[0] == "first"


def test_an_export_that_is_not_loaded_ends_the_waiting_though_the_server_tries_again(
    tmp_path, export
):
    program = tmp_path / "program"
    program.write_text("#!/bin/sh\necho Loading servable: net failed: too large\nsleep 600\n")
    program.chmod(0o755)
    with (
        pytest.raises(ServerError, match=r"does not load the export: .* failed: too large"),
        model_server.start(str(program), export, None, REQUEST),
    ):
        pass


def test_a_program_that_is_none_is_shown_with_the_systems_reason(tmp_path, export):
    program = tmp_path / "program"
    program.write_bytes(b"\x7fELF is not enough")
    program.chmod(0o755)
    with (
        pytest.raises(ServerError, match=r"has stopped: exit code 1: OSError: .*Exec format error"),
        model_server.start(str(program), export, None, REQUEST),
    ):
        pass


def test_a_request_that_the_server_refuses_ends_the_waiting(stub, export):
    with (
        pytest.raises(ServerError, match=r"the server answers 400: .*every so often"),
        model_server.start(stub(fail_every=1), export, None, REQUEST),
    ):
        pass


def test_a_server_that_dies_while_it_is_loaded_is_noticed(stub, export):
    with model_server.start(stub(), export, None, REQUEST) as server:
        os.kill(server.pid, signal.SIGKILL)
        with pytest.raises(ServerError, match="has stopped: exit code 137: a stub listens"):
            server.check()


def test_the_memory_is_the_peak_of_the_servers_largest_process(stub, export):
    with model_server.start(stub(mebibytes=200), export, None, REQUEST) as server:
        assert 200 < server.peak_memory_mebibytes() < 400


def test_the_version_is_what_the_program_prints_or_nothing(stub, tmp_path):
    assert model_server.version(stub(), tmp_path) == "TensorFlow ModelServer: 1.2.3"
    assert model_server.version("/bin/false", tmp_path) is None


@pytest.mark.parametrize("how", ["the pipe ends", "its holder is killed"])
def test_a_leash_ends_a_program_that_ignores_signals_and_its_children(how, tmp_path):
    # A shell that ignores SIGTERM, and so do its children.
    command = ["sh", "-c", f"trap '' TERM; sleep 600 & echo $! > {tmp_path}/child; wait; wait"]
    holder = (
        "import subprocess, sys\n"
        "leash = subprocess.Popen(sys.argv[1:], stdin=subprocess.PIPE)\n"
        "sys.stdin.read()\n"
        "leash.stdin.close()\n"
        "leash.wait()\n"
    )
    leash = [sys.executable, "-P", str(model_server.LEASH), *command]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", holder, *leash], **pipes) as process:
        pids = [int(process.stdout.readline())]
        while not (tmp_path / "child").exists() or not (tmp_path / "child").read_text():
            time.sleep(0.05)
        pids.append(int((tmp_path / "child").read_text()))
        assert alive(pids) == pids
        if how == "the pipe ends":
            process.stdin.close()
        else:
            process.kill()
        wait_until_gone(pids)


@pytest.mark.parametrize(
    ("text", "images"),
    [
        (None, 32),
        ("", 32),
        (server_files.BATCHING_PARAMETERS, 32),
        ("max_batch_size { value: 8 }", 8),
        ("# max_batch_size { value: 4 }\nmax_batch_size{value:16}", 16),
        ("max_batch_size: { value: 1000 }", 32),
    ],
)
def test_warm_up_requests_are_no_larger_than_the_server_allows(text, images):
    assert model_server.largest_batch(text) == images


def test_batching_parameters_are_those_written_none_or_a_file(tmp_path):
    assert model_server.batching_text("written") == server_files.BATCHING_PARAMETERS
    assert model_server.batching_text("none") is None
    (tmp_path / "mine").write_text("max_batch_size { value: 8 }")
    assert model_server.batching_text(str(tmp_path / "mine")) == "max_batch_size { value: 8 }"
    (tmp_path / "mine").write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match=r"batching must be text .* Received: batching=.*mine"):
        model_server.batching_text(str(tmp_path / "mine"))
