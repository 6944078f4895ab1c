import pytest

from keras_preact.doctor import gpu_tests, verdicts

FINE = {
    "unit": {"errors": {"output": 1e-6, "gradient": 1e-6}},
    "variance": {"relative_error": 1e-6},
    "input_speed": {"images_per_second": 3000.0},
    "training_speed": {
        "images_per_second": 2000.0,
        "first_step_seconds": 3.0,
        "precision": "mixed_bfloat16",
        "xla": True,
        "steps_per_launch": 31,
        "peak_memory_mebibytes": 1024.0,
        "device_memory_mebibytes": 2048.0,
    },
    "all_reduce": {"sums": [3.0, 3.0]},
    "trains_as_processor": {"losses": {"gpu": 2.301, "cpu": 2.302}},
}
NO_DRIVER = {"driver": None, "device_files": False, "devices": 0}


def made(gpus=(), facts=NO_DRIVER, **answers):
    """The lines of a machine with these GPUs, by subject, and the trials."""
    answers = {"devices": {"gpus": list(gpus), "tf32": True}, **FINE, **answers}

    def ask(name, **options):
        answer = answers[name]
        return answer(**options) if callable(answer) else answer

    trials = verdicts.Trials(ask, lambda subject: None)
    lines = [*trials.device_lines(facts), *trials.arithmetic_lines(), *trials.speed_lines()]
    return {line.subject: line for line in lines}, trials


def to_do(lines):
    return {subject for subject, line in lines.items() if line.advice}


@pytest.mark.parametrize("gpus", [(), ("H200",), ("H200", "H200")], ids=len)
def test_where_all_is_well_nothing_is_to_do(gpus):
    lines, _ = made(gpus)
    assert not to_do(lines)
    assert ("sum over GPUs" in lines) == (len(gpus) > 1)
    assert ("float32, GPU:1" in lines) == (len(gpus) > 1)
    assert ("training, as the CPU" in lines) == bool(gpus)
    expected = "train ResNet-50" if gpus else "train ResNet-20"
    assert "2,000 images/s" in lines[expected].finding
    assert lines["launches"].finding.startswith("of 31 steps at this speed")


def test_a_gpu_that_tensorflow_does_not_see_is_to_be_looked_for():
    facts = {"driver": {"gpus": [{}]}, "device_files": True, "devices": 1}
    lines, _ = made(facts=facts)
    assert "sees none" in lines["GPUs"].finding and lines["GPUs"].advice


def test_gpus_that_are_missing_among_others_are_counted():
    facts = {"driver": {"gpus": [{"memory_bytes": 2**37}] * 8}, "device_files": True, "devices": 8}
    lines, _ = made(("H200",) * 7, facts, all_reduce={"sums": [28.0] * 7})
    assert "1 of the driver's GPUs" in lines["GPUs"].advice


def test_an_abort_under_xla_concerns_its_line_alone():
    def unit(precision, jit, device):
        return {"error": "the process was ended by SIGABRT"} if jit else FINE["unit"]

    lines, trials = made(("H200",), unit=unit)
    assert to_do(lines) == {f"{precision}, XLA" for precision in verdicts.PRECISIONS}
    assert lines["float32, XLA"].advice == "train with --xla=off"
    assert trials.passed["unit"] is False


@pytest.mark.parametrize(
    ("precision", "error", "fine"),
    [
        ("float32", 5e-4, False),
        ("mixed_float16", 5e-4, True),
        ("mixed_float16", 5e-3, False),
        ("mixed_bfloat16", 5e-3, True),
        ("mixed_bfloat16", 1e300, False),
    ],
)
def test_each_precision_has_its_tolerance(precision, error, fine):
    lines, _ = made(unit={"errors": {"output": error, "gradient": error}})
    assert (lines[precision].advice is None) is fine


def test_gpus_that_disagree_are_told():
    lines, _ = made(
        ("H200",) * 2,
        all_reduce={"sums": [3.0, 2.0]},
        trains_as_processor={"losses": {"gpu": 2.5, "cpu": 2.3}},
        variance={"relative_error": 0.5},
    )
    subjects = {"sum over GPUs", "training, as the CPU", "BN's variance", "BN's variance, XLA"}
    assert to_do(lines) == subjects


def test_a_gpu_that_the_cores_cannot_feed_is_told():
    lines, _ = made(("H200",), input_speed={"images_per_second": 500.0})
    assert to_do(lines) == {"input for that net"}
    assert "500 images/s of the 2,000" in lines["input for that net"].finding


@pytest.mark.parametrize(
    ("error", "advice"),
    [
        ("ModuleNotFoundError: No module named 'tensorflow'", "keras_preact[train]"),
        ("ImportError: set KERAS_BACKEND=tensorflow", "export KERAS_BACKEND=tensorflow"),
        ("the process was ended by SIGILL", "AVX"),
        ("exit code 1: something", "--force-reinstall"),
    ],
)
def test_a_tensorflow_that_does_not_start_is_one_line(error, advice):
    lines, _ = made(devices={"error": error})
    assert list(lines) == ["TensorFlow"] and advice in lines["TensorFlow"].advice


def test_what_was_not_finished_in_time_can_have_more():
    lines, _ = made(training_speed={"late": 30.0}, input_speed={"late": 0.0}, unit={"late": 9.0})
    assert lines["train ResNet-20"].advice.endswith("doctor --seconds=300")
    assert lines["train ResNet-20"].optional and lines["JPEG input"].optional
    assert lines["JPEG input"].finding == "no time left for it"
    # It may hang.
    assert not lines["float32"].optional


@pytest.mark.parametrize(("memory_bytes", "batch"), [(8 * 2**30, 32), (140 * 2**30, 128)])
def test_a_small_gpu_trains_in_small_batches(memory_bytes, batch):
    facts = {"driver": {"gpus": [{"memory_bytes": memory_bytes}]}, "device_files": True}
    lines, _ = made(("a GPU",), facts)
    assert f"in batches of {batch}," in lines["train ResNet-50"].finding


def test_gpu_tests_are_done_above_or_named_with_their_command():
    passed = {"trains_as_processor": True, "unit": False}
    lines = {line.subject: line for line in gpu_tests.lines(passed, has_gpu=True)}
    assert lines["training"].advice is None
    assert "pytest -m gpu -k test_a_residual_unit" in lines["residual unit"].advice
    assert all(line.optional for line in lines.values() if line.advice)
    assert not any(line.advice for line in gpu_tests.lines({}, has_gpu=False))
