import sys
import time

import pytest

from keras_preact.doctor import child, trials

# Answers trials by what their names say.
ANSWERS = f"""
import json, os, sys, time
for line in sys.stdin:
    name, options = json.loads(line)
    print("noise of a library", flush=True)
    if name == "abort":
        sys.stderr.write("W0000 a warning\\nF0000 00:00:17.5 1 cudnn.cc:7] No algorithm worked!\\n")
        sys.stderr.write("*** trace\\n")
        sys.stderr.flush()
        os.abort()
    if name == "exit":
        sys.exit("no words")
    if name == "hang":
        time.sleep(600)
    print({child.MARK!r} + json.dumps({{"name": name, "pid": os.getpid(), **options}}), flush=True)
"""


@pytest.fixture
def make():
    made = []

    def started(seconds=60.0):
        deadline = time.monotonic() + seconds
        made.append(child.Child(deadline, [sys.executable, "-S", "-c", ANSWERS]))
        return made[-1]

    yield started
    for one in made:
        one.stop()


def test_one_process_answers_all_trials(make):
    asked = make()
    first, second = asked.ask("first", a=1), asked.ask("second")
    assert (first["name"], first["a"], second["name"]) == ("first", 1, "second")
    assert first["pid"] == second["pid"]


def test_a_process_that_aborts_says_why_and_another_answers_on(make):
    asked = make()
    before = asked.ask("fine")
    aborted = asked.ask("abort")
    assert aborted == {"error": "the process was ended by SIGABRT: No algorithm worked!"}
    assert asked.ask("exit") == {"error": "exit code 1: no words"}
    assert asked.ask("fine")["pid"] != before["pid"]


def test_a_trial_that_hangs_ends_with_the_time(make):
    asked = make(seconds=1.0)
    began = time.monotonic()
    assert 0.1 < asked.ask("hang")["late"] < 30
    assert asked.ask("fine") == {"late": 0.0}
    assert time.monotonic() - began < 30


def test_the_mark_is_that_of_the_trials():
    # trials.py is started by its path, and child.py must not import NumPy.
    assert child.MARK == trials.MARK


@pytest.mark.parametrize(
    ("program", "words"),
    [
        ("import time; time.sleep(60)", "no answer in 1 seconds"),
        ("print('no JSON')", "no answer"),
        ("import os; os.kill(os.getpid(), 11)", "the process was ended by SIGSEGV"),
    ],
)
def test_a_probe_that_fails_answers_in_words(program, words):
    assert child.probed(1.0, [sys.executable, "-S", "-c", program]) == {"error": words}


def test_native_fatal_lines_are_found_in_either_form():
    errors = "2026-01-01 10:00:00.123: F tensorflow/x.cc:12] Check failed: cudnn\nAborted\n"
    assert child.last_words(-6, errors).endswith("SIGABRT: Check failed: cudnn")
    assert "memory runs out" in child.last_words(-9, "")
