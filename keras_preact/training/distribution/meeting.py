"""Exchanges values between the workers of a run before TensorFlow connects them.

TensorFlow's collectives need workers with equal numbers of devices, the same version, and the
same operations in the same order. Workers find out here, over plain connections to the chief's
port in TF_CONFIG. TensorFlow's server takes the port over afterwards.
"""

import contextlib
import json
import re
import select
import socket
import time
from typing import Any

from keras_preact.training.distribution.cluster import (
    CONNECT_SECONDS,
    Cluster,
    WorkerLostError,
)

RETRY_SECONDS = 0.2

# Connections are silent while workers load their data.
_KEEPALIVE_SECONDS = 30
_WELCOME = "welcome"
_LONGEST_GREETING_BYTES = 100
_LEAVE_SECONDS = 1


class Meeting:
    """Connections between the workers of a cluster."""

    def __init__(self, cluster: Cluster):
        self._cluster = cluster
        self._connections: dict[int, socket.socket] = {}

    def open(self, timeout_seconds: float) -> None:
        """Waits until every worker is there and has reached every other.

        TensorFlow's own waiting has no end and names no worker.

        Raises:
            WorkerLostError: if a worker is missing at the end of the time.
            ValueError: if this worker's port is taken.
        """
        end = time.monotonic() + timeout_seconds
        reached_all = False
        with _listener(self._cluster) as listener:
            while True:
                # Accepted even before they are needed: a full queue refuses connections.
                arrived = _accepted(listener)
                silent = () if reached_all else self._cluster.silent()
                reached_all = not silent
                gather = self._gather if self._cluster.is_chief else self._join
                if gather(arrived, reached_all):
                    return
                if time.monotonic() > end:
                    self.close()
                    raise WorkerLostError(
                        f"Missing after {timeout_seconds:g} seconds: "
                        f"{', '.join(silent or self._absent())}. Start all workers, each with its "
                        "own index, and let their ports through."
                    )
                if reached_all:
                    select.select([listener, *self._connections.values()], [], [], RETRY_SECONDS)
                else:
                    time.sleep(RETRY_SECONDS)

    def exchange(self, value: Any) -> list[Any]:
        """Returns the values of all workers, in order; every worker must call it.

        Args:
            value: of this worker; JSON must be able to hold it.

        Raises:
            WorkerLostError: if a worker ends before.
        """
        if not self._cluster.is_chief:
            return self._ask_chief(value)
        # Through JSON, like the values of the others.
        values = {0: json.loads(json.dumps(value)), **self._collect()}
        lost = sorted(self._connections.keys() - values.keys())
        answer = {"lost": lost} if lost else {"values": [values[i] for i in sorted(values)]}
        others = [self._connections[index] for index in self._connections.keys() - lost]
        for connection in others:
            _send(connection, answer)
        if lost:
            _let_read(others)
            raise self._lost(lost)
        return answer["values"]

    def close(self) -> None:
        """Closes the connections; workers that still wait for this one learn that it is lost."""
        for connection in self._connections.values():
            connection.close()
        self._connections = {}

    def _gather(self, arrived, reached_all):
        """As the chief, accepts workers; once all are there, tells them so and returns True."""
        for connection in arrived:
            index = _introduced(connection, len(self._cluster.addresses))
            if index is None:
                connection.close()
            else:
                self._connections[index] = connection
        # Workers send nothing before the welcome: a readable connection has ended.
        for index in [i for i, c in self._connections.items() if _readable(c)]:
            self._connections.pop(index).close()
        if not reached_all or self._absent():
            return False
        for connection in self._connections.values():
            _wait_without_end(connection)
            _send(connection, _WELCOME)
        return True

    def _join(self, arrived, reached_all):
        """As a worker, greets the chief; returns True once it says that all are there."""
        for connection in arrived:
            connection.close()
        if 0 not in self._connections:
            if not reached_all:
                return False
            try:
                self._connections[0] = self._greet_chief()
            except OSError:
                return False
        if not _readable(self._connections[0]):
            return False
        if _receive(self._connections[0], _LONGEST_GREETING_BYTES) == _WELCOME:
            _wait_without_end(self._connections[0])
            return True
        # The chief has ended, or this is another program; the chief may come later.
        self._connections.pop(0).close()
        return False

    def _greet_chief(self):
        host, _, port = self._cluster.addresses[0].rpartition(":")
        connection = socket.create_connection((host, int(port)), CONNECT_SECONDS)
        count = len(self._cluster.addresses)
        connection.sendall(f"keras_preact worker {self._cluster.index} of {count}\n".encode())
        return connection

    def _absent(self):
        """Names the workers that the chief waits for; a worker knows of the chief alone."""
        indices = range(1, len(self._cluster.addresses)) if self._cluster.is_chief else [0]
        here = self._connections if self._cluster.is_chief else ()
        return [self._name(index) for index in indices if index not in here]

    def _collect(self):
        """Collects the values of the other workers; stops early when one of them has ended."""
        values, waiting = {}, dict(self._connections)
        while waiting and len(values) + len(waiting) == len(self._connections):
            for connection in select.select(list(waiting.values()), [], [])[0]:
                index = next(i for i, c in waiting.items() if c is connection)
                del waiting[index]
                received = _receive(connection)
                if received is not None:
                    values[index] = received["value"]
        # The rest is still there, to be told of the lost workers.
        return values | dict.fromkeys(waiting)

    def _ask_chief(self, value):
        # The chief has already answered if another worker has ended.
        if not _readable(self._connections[0]):
            _send(self._connections[0], {"value": value})
        answer = _receive(self._connections[0])
        if answer is None or "lost" in answer:
            raise self._lost(answer["lost"] if answer else [0])
        return answer["values"]

    def _lost(self, indices):
        return WorkerLostError(
            f"Lost {' and '.join(map(self._name, indices))} before the first step: it has ended "
            "or cannot be reached. Its own output says why. Start all workers again."
        )

    def _name(self, index):
        return f"worker {index} at {self._cluster.addresses[index]}"


def _listener(cluster):
    port = int(cluster.addresses[cluster.index].rpartition(":")[2])
    try:
        listener = socket.create_server(("", port))
    except OSError as error:
        raise ValueError(
            f"The port of this worker must be free. Received: {port} ({error.strerror})"
        ) from None
    listener.setblocking(False)
    return listener


def _accepted(listener):
    arrived = []
    try:
        while True:
            arrived.append(listener.accept()[0])
    except (BlockingIOError, ConnectionAbortedError):
        return arrived


def _introduced(connection, count):
    """Returns the index of the connected worker; None for a stranger or a mere check."""
    connection.settimeout(CONNECT_SECONDS)
    try:
        with connection.makefile("rb") as file:
            line = file.readline(_LONGEST_GREETING_BYTES)
    except OSError:
        return None
    match = re.fullmatch(rb"keras_preact worker (\d+) of (\d+)\n", line)
    if not match or int(match[2]) != count or not 0 < int(match[1]) < count:
        return None
    return int(match[1])


def _wait_without_end(connection):
    """Makes reads wait without limit, but end when the other machine has vanished."""
    connection.settimeout(None)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if hasattr(socket, "TCP_KEEPIDLE"):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _KEEPALIVE_SECONDS)


def _readable(connection):
    """Whether there is something to read, or the other side has ended."""
    return bool(select.select([connection], [], [], 0)[0])


def _let_read(connections):
    """Waits a little until the others have read their last message and closed.

    Closing a connection with unread input would discard that message.
    """
    waiting, end = list(connections), time.monotonic() + _LEAVE_SECONDS
    while waiting and (left := end - time.monotonic()) > 0:
        for connection in select.select(waiting, [], [], left)[0]:
            try:
                ended = not connection.recv(2**16)
            except OSError:
                ended = True
            if ended:
                waiting.remove(connection)


def _send(connection, value):
    # A later read notices if the other side has ended.
    with contextlib.suppress(OSError):
        connection.sendall(f"{json.dumps(value)}\n".encode())


def _receive(connection, most_bytes=-1):
    """Reads the next value; None if the other side has ended, or is another program."""
    try:
        with connection.makefile("rb") as file:
            line = file.readline(most_bytes)
        return json.loads(line) if line.endswith(b"\n") else None
    except (OSError, ValueError):
        return None
