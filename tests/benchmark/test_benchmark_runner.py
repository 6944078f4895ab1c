import signal
import subprocess
import sys
import time

import pytest

from keras_preact.benchmark import runner
from keras_preact.benchmark.config import BenchmarkConfig


def script(tmp_path, text):
    path = tmp_path / "script.py"
    path.write_text(text)
    return path


def test_a_process_answers_with_its_last_line(tmp_path):
    program = "import sys\nprint('noise')\nprint(sys.stdin.read())\n"
    assert runner.start_script(script(tmp_path, program), {"a": [1]}) == {"a": [1]}


@pytest.mark.parametrize(
    ("program", "error"),
    [
        ("import sys\nsys.exit('one\\ntwo\\n')", "exit code 1: two"),
        ("import sys\nsys.exit(3)", "exit code 3: no message"),
        (
            "import os\nos.kill(os.getpid(), 9)",
            "killed by SIGKILL, as systems do when memory runs out",
        ),
        ("import os\nos.abort()", "killed by SIGABRT"),
    ],
)
def test_a_process_that_fails_answers_with_the_reason(tmp_path, program, error):
    assert runner.start_script(script(tmp_path, program), {}) == {"error": error}


def make_config(tmp_path, **options):
    return BenchmarkConfig(
        **{
            "models": (8,),
            "precisions": ("float32",),
            "modes": ("train",),
            "frameworks": ("keras_preact", "keras"),
            "image_size": 8,
            "batch_size": 4,
            "csv": str(tmp_path / "figures.csv"),
            **options,
        }
    )


class Processes:
    """Stands in for processes: answers from a list for each framework, and records the order."""

    def __init__(self, **answers):
        self.order, self.answers = [], {name: list(items) for name, items in answers.items()}

    def start(self, name, argument):
        name = argument.get("framework", "peak")
        self.order.append(name)
        return self.answers[name].pop(0)


def speed(images_per_second):
    return {
        "images_per_second": images_per_second,
        "first_step_seconds": 1.0,
        "steps": 10,
        "peak_memory_mebibytes": 100.0,
        "device": "CPU",
        "device_memory_mebibytes": None,
    }


def peak(teraflops):
    return {"peak_teraflops": teraflops, "size": 512, "device": "CPU"}


def test_the_frameworks_take_turns_and_the_best_peak_counts(tmp_path):
    processes = Processes(
        peak=[peak(0.1), peak(0.3), peak(0.2)],
        keras_preact=[speed(30), speed(10), speed(20)],
        keras=[speed(5), speed(4), speed(10)],
    )
    said = []
    outcome = runner.run(make_config(tmp_path, rounds=3), said.append, processes.start)
    assert processes.order == ["peak", "keras_preact", "keras"] * 3
    assert outcome.peaks == {"float32": peak(0.3)}
    assert [row.images_per_second for row in outcome.rows] == [20, 5]
    assert len(said) == 9
    assert "resnet8 float32 train, round 2 of 3, keras: 4.0 images/s" in said


@pytest.mark.parametrize("name", ["batch_size", "image_size"])
def test_a_batch_that_memory_cannot_hold_is_refused_before_anything_is_measured(tmp_path, name):
    with pytest.raises(ValueError, match=f"must fit into memory.*lower --{name}"):
        runner.run(make_config(tmp_path, **{name: 2**31 - 1}), print, start=None)


def test_a_framework_that_fails_is_not_tried_again_and_leaves_the_others_alone(
    tmp_path,
):
    processes = Processes(
        peak=[{"error": "no peak"}],
        keras_preact=[speed(30), speed(10), speed(20)],
        keras=[speed(5), {"error": "out of memory"}],
    )
    ours, stock = runner.run(make_config(tmp_path, rounds=3), print, processes.start).rows
    assert processes.order[-2:] == ["keras", "keras_preact"]
    assert (ours.images_per_second, ours.error, ours.rounds) == (20, None, 3)
    assert (stock.images_per_second, stock.error, stock.rounds) == (5, "out of memory", 1)
    assert ours.share_of_peak is None


@pytest.mark.parametrize(
    "number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)]
)
def test_the_process_that_measures_ends_with_the_one_that_waits(tmp_path, number):
    # Even where the signal reaches the waiting process alone.
    beats = tmp_path / "beats"
    child = script(
        tmp_path,
        f"import time\nfile = open({str(beats)!r}, 'a', buffering=1)\n"
        "while True:\n    print(file=file)\n    time.sleep(0.1)\n",
    )
    program = (
        "import functools\n"
        "from keras_preact.benchmark import __main__ as benchmark, runner\n"
        f"wait = lambda config, say: runner.start_script({str(child)!r}, {{}})\n"
        "main = functools.partial(benchmark.main, run=wait)\n"
        "config = benchmark.BenchmarkConfig\n"
        "benchmark.program.start(main, config, '', 'nothing is written')\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stderr=subprocess.PIPE) as waiting:
        deadline = time.monotonic() + 120
        while not beats.exists() and time.monotonic() < deadline:
            time.sleep(0.1)
        waiting.send_signal(number)
        error = waiting.communicate(timeout=120)[1].decode()
    assert waiting.returncode == 128 + number, error
    assert "Traceback" not in error
    size = beats.stat().st_size
    time.sleep(0.5)
    assert beats.stat().st_size == size
