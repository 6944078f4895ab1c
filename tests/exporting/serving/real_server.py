"""An export on the real server, or on a mock of it."""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request

from keras_preact.exporting.serving import client, server_files

PROGRAM = "tensorflow_model_server"
START_SECONDS = 180


def free_ports():
    with contextlib.ExitStack() as stack:
        listeners = [socket.create_server(("127.0.0.1", 0)) for _ in client.PORTS]
        for listener in listeners:
            stack.enter_context(listener)
        ports = [listener.getsockname()[1] for listener in listeners]
    return dict(zip(client.PORTS, ports, strict=True))


class Server:
    """A server of one model.

    Args:
        ports: by protocol.
        name: of the model.
        process: of the server; None for a mock in this process.
    """

    def __init__(self, ports, name, process=None):
        self.ports, self.name, self.process = ports, name, process

    def post(self, body, timeout_seconds=60):
        """The status and the JSON of the answer to a request, given as bytes or as an object."""
        url = f"http://127.0.0.1:{self.ports['rest']}/v1/models/{self.name}:predict"
        body = body if isinstance(body, bytes) else json.dumps(body).encode()
        try:
            with urllib.request.urlopen(url, data=body, timeout=timeout_seconds) as response:
                return response.status, json.load(response)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)

    def get(self, path):
        url = f"http://127.0.0.1:{self.ports['rest']}{path}"
        with urllib.request.urlopen(url, timeout=10) as response:
            return response.read().decode()

    def is_available(self):
        try:
            versions = json.loads(self.get(f"/v1/models/{self.name}"))["model_version_status"]
        except OSError:
            return False
        return any(version["state"] == "AVAILABLE" for version in versions)

    def lives(self):
        return self.process is None or self.process.poll() is None


@contextlib.contextmanager
def started(executable, export, name, folder, *flags, prepare=lambda copy: None):
    """A server of a copy of an export, as a program that has loaded it.

    Args:
        executable: the program.
        export: the folder of an export.
        name: of the model.
        folder: for the copy.
        flags: besides those that the export names.
        prepare: changes the copy before the server starts.
    """
    # The export as it is served, but not at /models/NAME.
    copy = folder / name
    shutil.copytree(export, copy)
    prepare(copy)
    for config in (copy / "serving").glob("*.config*"):
        config.write_text(config.read_text().replace(f"/models/{name}/", f"{copy}/"))
    ports, log = free_ports(), folder / "server.log"
    given = server_files.server_flags(str(copy), grpc_port=ports["grpc"], rest_port=ports["rest"])
    with log.open("w") as output:
        process = subprocess.Popen(
            [executable, *given, *flags],
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    server = Server(ports, name, process)
    try:
        deadline = time.monotonic() + START_SECONDS
        while not server.is_available():
            assert server.lives(), f"the server has stopped:\n{log.read_text()[-5000:]}"
            assert time.monotonic() < deadline, f"it does not serve:\n{log.read_text()[-5000:]}"
            time.sleep(0.2)
        yield server
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
