"""Signals and the time limit."""

import hashlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest

from keras_preact.support import signals
from keras_preact.support.signals import Interrupted
from keras_preact.training import interruption
from keras_preact.training.interruption import Interruption

# Loads the module by its path: the package would import TensorFlow.
BUSY = """
import hashlib, importlib.util, sys
spec = importlib.util.spec_from_file_location("interruption", sys.argv[1])
interruption = importlib.util.module_from_spec(spec)
spec.loader.exec_module(interruption)
with interruption.Interruption(tell=lambda line: print(line, flush=True)):
    print("busy", flush=True)
    hashlib.pbkdf2_hmac("sha256", b"", b"", 10**9)
"""


class Clock:
    def __init__(self):
        self.now = 5000.0

    def monotonic(self):
        return self.now

    def go(self, seconds):
        self.now += seconds


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    for module in (interruption, signals):
        monkeypatch.setattr(module, "time", clock)
    return clock


def send(number):
    os.kill(os.getpid(), number)


def wait_until(condition):
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.001)


@pytest.fixture
def exits(monkeypatch):
    """Collects exit codes in place of ending the process."""
    codes = []
    monkeypatch.setattr(os, "_exit", codes.append)
    return codes


def iterations(seconds):
    """Returns the number of iterations that keep the CPU busy for some seconds, in one call."""
    begun = time.perf_counter()
    hashlib.pbkdf2_hmac("sha256", b"", b"", 100_000)
    return round(100_000 * seconds / (time.perf_counter() - begun))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_is_heard_at_once_while_the_program_computes(number, exits):
    sent, heard, count = [], [], iterations(1.0)

    def send_it():
        sent.append(time.monotonic())
        send(number)

    with Interruption(tell=lambda line: heard.append((time.monotonic(), line))) as asked:
        assert not asked.requested
        threading.Timer(0.2, send_it).start()
        # One long call in C, like TensorFlow's: Python's own handlers run after it.
        hashlib.pbkdf2_hmac("sha256", b"", b"", count)
        returned = time.monotonic()
        assert asked.requested
    [(when, line)] = heard
    assert when - sent[0] < (returned - sent[0]) / 2
    assert line == f"{number.name}: stopping after this step. A second signal ends at once."
    why = asked.interrupted("after step 7")
    assert isinstance(why, KeyboardInterrupt)
    assert (str(why), why.exit_code) == (f"{number.name}, after step 7", 128 + number)
    assert exits == []


def test_signals_sent_together_count_as_one_and_a_later_one_ends_the_process(exits, clock):
    lines = []
    with Interruption(tell=lines.append) as asked:
        # timeout and job schedulers signal a process and its group.
        for number, seconds in ((signal.SIGTERM, 0.0), (signal.SIGINT, 0.0), (signal.SIGINT, 0.19)):
            clock.go(seconds)
            send(number)
            time.sleep(0.1)  # until another thread has heard it
        assert exits == [] and len(lines) == 1
        assert asked.interrupted("").exit_code == 143
        clock.go(0.02)
        send(signal.SIGINT)
        wait_until(lambda: exits)
    assert exits == [130]


def test_a_closed_terminal_is_no_second_signal_however_often_it_says_so(exits, clock):
    lines = []
    with Interruption(tell=lines.append) as asked:
        for _ in range(3):
            send(signal.SIGHUP)
            time.sleep(0.1)  # until another thread has heard it
            clock.go(10)
        assert exits == [] and len(lines) == 1
        assert asked.interrupted("").exit_code == 129
        send(signal.SIGINT)
        wait_until(lambda: exits)
    assert exits == [130]


def test_signals_that_nohup_ignores_stay_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Interruption() as asked:
            send(signal.SIGHUP)
            time.sleep(0.1)
            assert not asked.requested
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_second_signal_ends_a_busy_process_at_once():
    process = subprocess.Popen(
        [sys.executable, "-c", BUSY, interruption.__file__], stdout=subprocess.PIPE, text=True
    )
    with process:
        try:
            assert process.stdout.readline() == "busy\n"
            process.send_signal(signal.SIGINT)
            assert process.stdout.readline().startswith("SIGINT: stopping after this step")
            time.sleep(0.3)
            assert process.poll() is None
            process.send_signal(signal.SIGTERM)
            assert process.wait(10) == 128 + signal.SIGTERM
        finally:
            process.kill()


def listeners():
    return [thread for thread in threading.enumerate() if "_listen" in thread.name]


def test_earlier_handlers_are_restored():
    reader, writer = socket.socketpair()
    writer.setblocking(False)
    wait_until(lambda: not listeners())
    handlers = [signal.getsignal(number) for number in signals.SIGNALS]
    with reader, writer:
        before = signal.set_wakeup_fd(writer.fileno())
        try:
            with Interruption():
                assert signal.getsignal(signal.SIGTERM) != handlers[1]
                assert len(listeners()) == 1
            assert [signal.getsignal(number) for number in signals.SIGNALS] == handlers
        finally:
            assert signal.set_wakeup_fd(before) == writer.fileno()
    wait_until(lambda: not listeners())


def test_outside_the_main_thread_nothing_is_installed():
    before, seen = signal.getsignal(signal.SIGINT), []

    def work():
        with Interruption() as asked:
            seen.append((signal.getsignal(signal.SIGINT), asked.requested))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [(before, False)]


@pytest.mark.parametrize(("interval", "looks"), [(50, 11), (7, 85), (400, 1), (1000, 1)])
def test_the_time_is_up_one_interval_before_the_limit(clock, interval, looks):
    asked, count = Interruption(limit_seconds=600), 0
    while not asked.requested:
        clock.go(interval)
        count += 1
    # At this look, no further interval fits in.
    assert count == looks == next(n for n in range(1, 100) if n * interval + interval >= 600)
    why = asked.interrupted("after step 7")
    assert isinstance(why, Interrupted)
    assert (str(why), why.exit_code) == ("the 10 minutes allowed are over, after step 7", 75)
    clock.go(-300)
    assert asked.requested


def test_the_longest_interval_counts_but_for_excluded_time(clock):
    asked = Interruption(limit_seconds=1000)
    clock.go(500)  # compiling
    asked.restart_clock()
    for seconds in (10, 80, 10, 310):  # 910 have passed
        assert not asked.requested
        clock.go(seconds)
        if seconds == 310:
            asked.restart_clock()  # saving
    assert not asked.requested
    clock.go(10)
    assert asked.requested  # 80 are left


def test_without_a_limit_the_time_is_never_up(clock):
    asked = Interruption()
    clock.go(10**9)
    assert not asked.requested


def test_a_signal_is_the_reason_even_where_the_time_is_up_too(clock):
    asked = Interruption(limit_seconds=60)
    with asked:
        clock.go(60)
        assert asked.requested
        send(signal.SIGINT)
        wait_until(lambda: asked.interrupted("").exit_code == 130)


def test_a_stop_without_a_signal_of_its_own_counts_as_sigterm():
    assert Interruption().interrupted("").exit_code == 143
