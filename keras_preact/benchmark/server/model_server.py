"""Starts a tensorflow_model_server, waits for its first answer, and stops it."""

import contextlib
import dataclasses
import http.client
import json
import os
import pathlib
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence

from tensorflow_serving.config import model_server_config_pb2

from keras_preact.exporting.serving import server_files
from keras_preact.exporting.serving.client import PORTS

LEASH = pathlib.Path(__file__).with_name("leash.py")
HOST = "127.0.0.1"
NAME = "net"
PREDICT = f"/v1/models/{NAME}:predict"
# A large net answers its warm-up requests first.
START_SECONDS = 600
STOP_SECONDS = 15
POLL_SECONDS = 0.02
# Lines of a server's output that explain why it stopped.
SHOWN_LINES = 12
_NOT_LOADED = re.compile(r"Loading servable: .* failed: ")
_BATCH_SIZE = re.compile(r"^\s*max_batch_size\s*:?\s*\{\s*value\s*:\s*(\d+)", re.MULTILINE)


class ServerError(Exception):
    """The server did not start or has stopped.

    Args:
        message: one line.
        output: the last lines that the server printed.
    """

    def __init__(self, message: str, output: Sequence[str]):
        super().__init__(message)
        self.output = tuple(output)


@dataclasses.dataclass(frozen=True)
class ModelServer:
    """A server that has given its first answer.

    Args:
        ports: by protocol, of the loopback.
        pid: of the process that was started.
        first_answer_seconds: from its start to the first answer.
        log: the file with its output.
        process: waits for it.
    """

    ports: dict[str, int]
    pid: int
    first_answer_seconds: float
    log: pathlib.Path
    process: subprocess.Popen

    def check(self) -> None:
        """Raises ServerError if the server has stopped."""
        # A process that has crashed takes a moment to be gone.
        with contextlib.suppress(subprocess.TimeoutExpired):
            raise _stopped(self.process.wait(0.2), self.log)

    def peak_memory_mebibytes(self) -> float | None:
        """The largest resident memory of any of its processes so far; None where it is unknown."""
        peaks = [_peak_mebibytes(pid) for pid in _session(self.pid)]
        return max((peak for peak in peaks if peak), default=None)


def write_config(folder: pathlib.Path) -> None:
    """Writes the files of `serving` that the server's flags name, for the export in a folder."""
    config = model_server_config_pb2.ModelServerConfig()
    config.model_config_list.config.add(
        name=NAME, base_path=str(folder / "saved_model"), model_platform="tensorflow"
    )
    serving = folder / "serving"
    serving.mkdir(exist_ok=True)
    (serving / "models.config").write_text(str(config))
    (serving / "monitoring.config").write_text(server_files.MONITORING)


def batching_text(batching: str) -> str | None:
    """The text of the batching parameters.

    Args:
        batching: "written", the parameters that exports come with; "none"; or a file.

    Raises:
        ValueError: if the file is no text.
        OSError: if it cannot be read.
    """
    if batching == "none":
        return None
    return server_files.BATCHING_PARAMETERS if batching == "written" else _read(batching)


def largest_batch(text: str | None) -> int:
    """The largest request, in images, that the batching parameters let through, at most 32."""
    found = _BATCH_SIZE.search(text or "")
    most = server_files.client.MAX_IMAGES
    return min(int(found[1]), most) if found else most


@contextlib.contextmanager
def start(
    program: str, folder: pathlib.Path, batching: str | None, first_request: bytes
) -> Iterator[ModelServer]:
    """Starts a server on free ports and stops it, with all its children, at the end.

    Args:
        program: the path of tensorflow_model_server.
        folder: an export with `write_config`'s file.
        batching: text of the batching parameters; None for no batching.
        first_request: the JSON of a request; its answer is waited for.

    Raises:
        ServerError: if the server stops before that, or does not answer.
    """
    ports, log = _free_ports(), folder / "server.log"
    flags = server_files.server_flags(str(folder), grpc_port=ports["grpc"], rest_port=ports["rest"])
    if batching is None:
        flags = [flag for flag in flags if "batching" not in flag]
    else:
        (folder / "serving" / "batching_parameters.txt").write_text(batching)
    with run([program, *flags], log) as process:
        begin = time.perf_counter()
        pid = int(process.stdout.readline() or 0)
        _wait(process, ports["rest"], first_request, log)
        yield ModelServer(ports, pid, time.perf_counter() - begin, log, process)


@contextlib.contextmanager
def run(command: Sequence[str], log: pathlib.Path) -> Iterator[subprocess.Popen]:
    """Runs a command on a leash; its output goes to a file.

    Yields:
        The leash: its first line of output is the command's process id, its exit code the
        command's.
    """
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-P", str(LEASH), *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=output,
            # Not the terminal's: Ctrl-C is for the benchmark, which then lets the leash go.
            start_new_session=True,
        )
    try:
        yield process
    finally:
        process.stdin.close()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()


def version(program: str, folder: pathlib.Path) -> str | None:
    """The version that a server prints, such as "TensorFlow ModelServer: 2.20.0", or None."""
    log = folder / "version.log"
    # A port, as programs around the server may listen before it ends.
    command = [program, f"--port={_free_ports()['grpc']}", "--version"]
    with run(command, log) as process, contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(STOP_SECONDS)
    lines = _lines(log)
    return next((line for line in lines if line.startswith("TensorFlow ModelServer")), None)


def _wait(process, port, request, log):
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise _stopped(process.returncode, log)
        # It would try again each minute, five times.
        for line in filter(_NOT_LOADED.search, _lines(log)):
            raise ServerError(f"the server does not load the export: {line}", _lines(log))
        # At first it does not listen.
        with contextlib.suppress(OSError, http.client.HTTPException):
            if _is_available(port):
                status, text = _ask(port, "POST", PREDICT, request)
                if status == http.client.OK:
                    return
                raise ServerError(f"the server answers {status}: {text[:300]}", _lines(log))
        time.sleep(POLL_SECONDS)
    raise ServerError(f"the server gave no answer within {START_SECONDS} s", _lines(log))


def _is_available(port):
    status, text = _ask(port, "GET", f"/v1/models/{NAME}")
    if status != http.client.OK:
        return False
    versions = json.loads(text)["model_version_status"]
    return any(version["state"] == "AVAILABLE" for version in versions)


def _ask(port, method, path, body=None):
    connection = http.client.HTTPConnection(HOST, port, timeout=START_SECONDS)
    with contextlib.closing(connection):
        connection.request(method, path, body, {"Content-Type": "application/json"})
        response = connection.getresponse()
        return response.status, response.read().decode(errors="replace")


def _stopped(code, log):
    lines = _lines(log)
    last = lines[-1].strip() if lines else "it printed nothing"
    return ServerError(f"the server has stopped: exit code {code}: {last}", lines)


def _lines(log):
    lines = log.read_text(errors="replace").splitlines()
    return [line for line in lines if line.strip()][-SHOWN_LINES:]


def _read(path):
    try:
        return pathlib.Path(path).expanduser().read_text()
    except UnicodeDecodeError:
        raise ValueError(
            f"batching must be text where it is a file. Received: batching={path}"
        ) from None


def _free_ports():
    with contextlib.ExitStack() as stack:
        listeners = {name: stack.enter_context(socket.create_server((HOST, 0))) for name in PORTS}
        return {name: listener.getsockname()[1] for name, listener in listeners.items()}


def _session(pid):
    """The ids of the processes in a session; none where the system has no /proc."""
    found = []
    for entry in pathlib.Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if os.getsid(int(entry.name)) == pid:
                found.append(int(entry.name))
    return found


def _peak_mebibytes(pid):
    with contextlib.suppress(OSError, KeyError):
        status = pathlib.Path(f"/proc/{pid}/status").read_text()
        fields = dict(line.split(":", 1) for line in status.splitlines())
        return int(fields["VmHWM"].split()[0]) / 2**10
    return None
