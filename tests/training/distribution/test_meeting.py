"""Workers exchange values before TensorFlow connects them."""

import contextlib
import socket
import threading
import time

import pytest
from loopback import TIMEOUT_SECONDS, clusters, together

from keras_preact.training.distribution import meeting
from keras_preact.training.distribution.cluster import Cluster, WorkerLostError
from keras_preact.training.distribution.meeting import Meeting


@contextlib.contextmanager
def opened(cluster, timeout_seconds=TIMEOUT_SECONDS):
    with contextlib.closing(Meeting(cluster)) as met:
        met.open(timeout_seconds)
        yield met


def exchanged(cluster, value):
    with opened(cluster) as met:
        return met.exchange(value)


def connected(address):
    host, _, port = address.rpartition(":")
    return socket.create_connection((host, int(port)), TIMEOUT_SECONDS)


@pytest.mark.parametrize("count", [2, 3, 5])
def test_all_workers_come_to_know_the_values_of_all_in_order(count):
    def work(cluster):
        with opened(cluster) as met:
            first = met.exchange({"worker": cluster.index, "text": "ü\n" * cluster.index})
            # Longer than a connection's buffers.
            second = met.exchange([cluster.index, "x" * 3_000_000])
        return first, [(index, len(text)) for index, text in second]

    answers = together(*(lambda each=each: work(each) for each in clusters(count)))
    texts = [{"worker": index, "text": "ü\n" * index} for index in range(count)]
    assert answers == [(texts, [(index, 3_000_000) for index in range(count)])] * count


def test_a_worker_receives_its_own_value_through_json_too():
    values = [(1, 2), {"a": (3,)}]
    answers = together(*(lambda c=c: exchanged(c, values[c.index]) for c in clusters(2)))
    assert answers == [[[1, 2], {"a": [3]}]] * 2


def test_a_worker_is_met_that_comes_after_others_have_looked_for_it_a_thousand_times(monkeypatch):
    looks, sleep = [], time.sleep
    monkeypatch.setattr(time, "sleep", lambda seconds: sleep(min(seconds, 0.001)))

    class Looking(Cluster):
        def silent(self):
            looks.append(1)
            return super().silent()

    here = [Looking(each.addresses, each.index) for each in clusters(3)]

    def late():
        end = time.monotonic() + TIMEOUT_SECONDS
        # The system queues 128 connections, and refuses more.
        while len(looks) < 1000:
            assert time.monotonic() < end
            time.sleep(0.01)
        return exchanged(here[2], "late")

    early = (lambda c=c: exchanged(c, "early") for c in here[:2])
    assert together(*early, late) == [["early", "early", "late"]] * 3


@pytest.mark.parametrize(("first", "other"), [(0, 2), (2, 0)])
def test_missing_workers_are_named(first, other):
    here = clusters(4)

    def wait(cluster, timeout_seconds):
        with opened(cluster, timeout_seconds):
            pass

    error, later = together(lambda: wait(here[first], 0.5), lambda: wait(here[other], 1.5))
    missing = [f"worker {index} at {here[0].addresses[index]}" for index in (1, 3)]
    assert isinstance(error, WorkerLostError) and isinstance(later, WorkerLostError)
    assert f"Missing after 0.5 seconds: {', '.join(missing)}. Start all" in str(error)


def test_a_port_that_is_taken_is_refused():
    cluster = clusters(2)[1]
    port = cluster.addresses[1].rpartition(":")[2]
    with (
        socket.create_server(("", int(port))),
        pytest.raises(ValueError, match=f"port of this worker must be free. Received: {port} "),
        opened(cluster),
    ):
        pass


@pytest.mark.parametrize(
    "greeting",
    [
        b"",
        b"GET / HTTP/1.1\r\n\r\n",
        b"keras_preact worker 1 of 3\n",
        b"keras_preact worker 0 of 2\n",
        b"keras_preact worker 2 of 2\n",
        b"keras_preact worker 1 of 2",
        b"\xff" * 1000,
    ],
)
def test_strangers_at_the_port_do_not_disturb(greeting, monkeypatch):
    monkeypatch.setattr(meeting, "CONNECT_SECONDS", 0.5)
    here, spoken = clusters(2), threading.Event()

    def stranger():
        end = time.monotonic() + TIMEOUT_SECONDS
        while time.monotonic() < end:
            with (
                contextlib.suppress(ConnectionRefusedError),
                connected(here[0].addresses[0]) as own,
            ):
                own.sendall(greeting)
                spoken.set()
                with contextlib.suppress(ConnectionResetError):
                    return own.recv(100)

    def worker():
        assert spoken.wait(TIMEOUT_SECONDS)
        return exchanged(here[1], "one")

    answers = together(stranger, lambda: exchanged(here[0], "zero"), worker)
    assert answers[1:] == [["zero", "one"]] * 2
    assert answers[0] in (b"", None)


@pytest.mark.parametrize("answer", [b"", b"SSH-2.0\r\n", b"[]\n", b"no end", b"x" * 10_000_000])
def test_another_program_at_the_chiefs_port_is_no_chief(answer, monkeypatch):
    monkeypatch.setattr(meeting, "CONNECT_SECONDS", 0.2)
    here, ended = clusters(2), threading.Event()
    port = int(here[0].addresses[0].rpartition(":")[2])

    def program():
        held = []
        with socket.create_server(("", port)) as server:
            server.settimeout(0.1)
            while not ended.is_set():
                with contextlib.suppress(OSError):
                    held.append(server.accept()[0])
                    held[-1].sendall(answer)
        for each in held:
            each.close()

    def worker():
        try:
            with opened(here[1], 1):
                pass
        finally:
            ended.set()

    _, error = together(program, worker)
    assert isinstance(error, WorkerLostError)
    assert f"Missing after 1 seconds: worker 0 at {here[0].addresses[0]}." in str(error)


def test_a_worker_that_has_ended_before_all_had_come_may_come_again():
    here = clusters(3)
    left = threading.Event()

    def restarted():
        greeted = threading.Thread(target=attempt)
        greeted.start()
        greeted.join()
        left.set()
        return exchanged(here[1], "again")

    def attempt():
        with contextlib.suppress(WorkerLostError), opened(here[1], 0.5):
            pass

    def last():
        assert left.wait(TIMEOUT_SECONDS)
        return exchanged(here[2], "last")

    answers = together(lambda: exchanged(here[0], "chief"), restarted, last)
    assert answers == [["chief", "again", "last"]] * 3


@pytest.mark.parametrize(("leaver", "waits"), [(0, False), (1, False), (2, False), (2, True)])
def test_a_worker_that_ends_is_named_by_the_others_at_once(leaver, waits):
    """waits: whether another worker sends nothing yet, as it loads its data."""
    here, told = clusters(3), threading.Event()

    def work(cluster):
        with opened(cluster) as met:
            met.exchange("flags")
            if cluster.index == leaver:
                return None
            if waits and cluster.index == 1:
                assert told.wait(TIMEOUT_SECONDS)
            try:
                met.exchange("data")
            finally:
                told.set()

    errors = together(*(lambda c=c: work(c) for c in here))
    assert errors.pop(leaver) is None
    for error in errors:
        assert isinstance(error, WorkerLostError)
        name = f"worker {leaver} at {here[0].addresses[leaver]}"
        assert f"Lost {name} before the first step: it has ended" in str(error)
