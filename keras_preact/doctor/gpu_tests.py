"""The tests marked gpu, what each does, and the trials that do the same here."""

from collections.abc import Iterator
from typing import NamedTuple

from keras_preact.doctor.lines import Line


class GpuTest(NamedTuple):
    """A test.

    Args:
        name: of its function.
        subject: in a word or two.
        text: what it sees.
        trials: names of trials that see the same, in part; none where only the test does.
        done: which part.
    """

    name: str
    subject: str
    text: str
    trials: tuple[str, ...] = ()
    done: str = "done above"


TESTS = (
    GpuTest(
        "test_all_gpus_train_as_one_processor_does",
        "training",
        "all GPUs train as one processor does, in each precision, with XLA and without",
        ("trains_as_processor",),
        "done above in float32, on the first",
    ),
    GpuTest(
        "test_a_residual_unit_agrees_with_float64",
        "residual unit",
        "a residual unit's output and gradients, in each precision, with XLA and without",
        ("unit",),
    ),
    GpuTest(
        "test_batch_normalization_agrees_with_float64",
        "BN",
        "BN's output and variance far from zero, in float32 and bfloat16, with XLA and without",
        ("variance",),
        "the variance done above in float32",
    ),
    GpuTest(
        "test_the_bits_do_not_depend_on_steps_per_loop_on_a_gpu",
        "steps a launch",
        "1 and 4 steps a launch end with the same bits",
    ),
    GpuTest(
        "test_an_export_says_what_its_model_says",
        "export",
        "an export is compared with its model with TF32 off, and TF32 stays as it was",
    ),
    GpuTest(
        "test_the_benchmark_measures_on_the_gpu",
        "benchmark",
        "the benchmark measures on the GPU",
    ),
    GpuTest(
        "test_a_killed_run_ends_as_one_that_was_not",
        "resume",
        "a run killed and resumed on all GPUs ends with the same bits",
    ),
)


def lines(passed: dict[str, bool], has_gpu: bool) -> Iterator[Line]:
    """A line for each test, with the command that runs it where no trial did the same.

    Args:
        passed: by the names of the trials that were made, whether they went well.
        has_gpu: whether TensorFlow sees a GPU.
    """
    for test in TESTS:
        done = all(passed.get(trial) for trial in test.trials) and bool(test.trials)
        if not has_gpu:
            yield Line(test.subject, f"{test.text}: needs a GPU")
        elif done:
            yield Line(test.subject, f"{test.text}: {test.done}")
        else:
            command = f"in a clone: python -m pytest -m gpu -k {test.name}"
            yield Line(test.subject, test.text, command, optional=True)
