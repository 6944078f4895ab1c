"""Printing where nobody reads, nothing fits, or there is nowhere to print to."""

import io
import os
import sys
import threading

import pytest
from tqdm import tqdm

from keras_preact.support import console
from keras_preact.support.console import say


def full():
    return open("/dev/full", "w")


def closed():
    stream = io.StringIO()
    stream.close()
    return stream


@pytest.mark.parametrize("make", [full, closed, lambda: None], ids=["full", "closed", "missing"])
def test_what_cannot_be_written_is_dropped(monkeypatch, make):
    stream = make()
    for name in ("stdout", "stderr"):
        monkeypatch.setattr(sys, name, stream)
    with console.unbreakable():
        for _ in range(3):
            print("x" * 100_000, flush=True)
            print("an error", file=sys.stderr, flush=True)
        assert not sys.stderr.isatty()
        with tqdm(total=3, disable=False) as bar:
            bar.update()
            tqdm.write("a line beside the bar", file=sys.stdout)
    assert sys.stdout is stream and sys.stderr is stream


def test_a_pipe_that_nobody_reads_is_survived_in_every_thread(monkeypatch):
    reader, writer = os.pipe()
    os.close(reader)
    monkeypatch.setattr(sys, "stdout", open(writer, "w"))  # noqa: SIM115
    with pytest.raises(BrokenPipeError):
        print("x", flush=True)
    said = []

    def work():
        say("x" * 100_000)
        said.append(True)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(said) == 4


def test_what_can_be_written_is_written_as_ever(capsys):
    with console.unbreakable():
        print("to stdout")
        print("to stderr", file=sys.stderr)
        say("beside a bar")
    assert capsys.readouterr() == ("to stdout\nbeside a bar\n", "to stderr\n")


def test_characters_that_a_stream_lacks_become_escapes(monkeypatch):
    bytes_ = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(bytes_, "ascii"))
    with console.unbreakable():
        print("n\u00e4mlich \udcff")
        assert sys.stdout.encoding == "ascii"
    assert bytes_.getvalue() == b"n\\xe4mlich \\udcff\n"


def test_contexts_within_each_other_wrap_once():
    with console.unbreakable():
        inner = sys.stdout
        with console.unbreakable():
            assert sys.stdout is console.stdout() is inner
        assert sys.stdout is inner


@pytest.mark.parametrize(("seconds", "said"), [(0.01, 0), (1.0, 1), (30.0, 2)])
def test_a_pass_that_lasts_says_how_far_it_is_off_a_terminal(capsys, monkeypatch, seconds, said):
    clock = iter(seconds * tick for tick in range(100))
    monkeypatch.setattr(console.time, "monotonic", lambda: next(clock))
    with console.counting("Checking files", 6000) as advance:
        for _ in range(6):
            advance(1000)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == said
    assert all(line.startswith("Checking files: ") and " of 6,000" in line for line in lines)
