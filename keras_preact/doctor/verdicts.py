"""Judges the answers of trials: how well this machine computes, and how fast."""

from collections.abc import Callable, Iterator, Mapping

from keras_preact.doctor import nvidia
from keras_preact.doctor.lines import Line
from keras_preact.support import commands, extras, machine, memory

PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16")
# The largest distances from float64, relative to its length. Rounding moves some values over
# ReLU's zero, which the gradient feels more than the output.
TOLERANCES = {
    "float32": {"output": 1e-4, "gradient": 1e-3},
    "mixed_bfloat16": {"output": 1e-2, "gradient": 0.15},
    "mixed_float16": {"output": 2e-3, "gradient": 0.06},
}
VARIANCE_TOLERANCE = 1e-4
# Of the loss after a few steps in float32, on a GPU and on the processor.
LOSS_TOLERANCE = 5e-3

# ResNet-20 takes seconds on two cores. ResNet-50 keeps a GPU busy.
_ON_CPU = {"depth": 20, "batch_size": 128, "steps": 5}
_ON_GPU = {"depth": 50, "batch_size": 32, "steps": 20}
_ON_LARGE_GPU = {**_ON_GPU, "batch_size": 128}
_LARGE_BYTES = 24 * 10**9
_REINSTALL = 'pip install --force-reinstall "tensorflow>=2.21,<2.22"'


class Trials:
    """Asks for trials, and makes a line of each answer.

    Args:
        ask: takes a trial's name and options; returns its answer, as `Child.ask` does.
        begin: is told the subject of each trial.

    Attributes:
        gpus: names of the GPUs that TensorFlow sees, None before it was asked.
        passed: by the names of the trials that were made, whether all of them went well.
    """

    def __init__(self, ask: Callable[..., dict], begin: Callable[[str], None]):
        self._ask = ask
        self._begin = begin
        self.gpus: list[str] | None = None
        self._training = _ON_CPU
        self.passed: dict[str, bool] = {}

    def device_lines(self, facts: Mapping) -> Iterator[Line]:
        """What TensorFlow sees.

        Args:
            facts: as `probe.probe` returns them.
        """
        answer = self._answer("TensorFlow", "devices")
        if "gpus" not in answer:
            yield self._failure("devices", "TensorFlow", answer, _import_advice(answer))
            return
        self.gpus = answer["gpus"]
        driver = facts.get("driver") or {}
        if self.gpus:
            smallest = min((gpu["memory_bytes"] for gpu in driver.get("gpus", ())), default=0)
            self._training = _ON_LARGE_GPU if smallest >= _LARGE_BYTES else _ON_GPU
            missing = len(driver.get("gpus", ())) - len(self.gpus)
            advice = f"look at the lines above: {missing} of the driver's GPUs are not seen"
            names = ", ".join(self.gpus)
            yield Line("GPUs", f"{len(self.gpus)}: {names}", advice if missing > 0 else None)
            state = "on" if answer["tf32"] else "off"
            yield Line("TF32", f"{state}: float32 results of a GPU differ by 1e-3 where it is on")
        elif "error" not in facts and nvidia.has_gpu(facts):
            advice = "do what the lines above say; if they are all ok: nvidia-smi"
            yield Line("GPUs", "TensorFlow sees none", advice)
        else:
            yield Line("GPUs", "none; TensorFlow runs on the processor")

    def arithmetic_lines(self) -> Iterator[Line]:
        """A residual unit in each precision, and BN's variances, without XLA and with it."""
        if self.gpus is None:
            return
        device = "GPU:0" if self.gpus else "CPU:0"
        for jit in (False, True):
            for precision in PRECISIONS:
                yield self._unit_line(precision, jit, device)
        for jit in (False, True):
            yield self._variance_line(jit, device)
        for index in range(1, len(self.gpus)):
            yield self._unit_line("float32", False, f"GPU:{index}")
        if len(self.gpus) > 1:
            yield self._all_reduce_line()
        if self.gpus:
            yield self._training_line()

    def speed_lines(self) -> Iterator[Line]:
        """Images a second of input and of training, and memory."""
        if self.gpus is None:
            return
        images_per_second = yield from self._input_lines()
        options = self._training
        subject = f"train ResNet-{options['depth']}"
        answer = self._answer(subject, "training_speed", **options)
        if "images_per_second" not in answer:
            advice = f"try {commands.door()} benchmark --modes=train"
            yield self._failure("training_speed", subject, answer, advice)
            return
        speed = answer["images_per_second"]
        yield Line(
            subject,
            f"{speed:,.0f} images/s in batches of {options['batch_size']}, {answer['precision']}, "
            f"XLA {'on' if answer['xla'] else 'off'}; first step after "
            f"{answer['first_step_seconds']:.0f} s",
        )
        steps = answer["steps_per_launch"]
        yield Line(
            "launches",
            f"of {steps} steps at this speed; training chooses them, and puts images of one size "
            "on the device while they take under a tenth of its memory: nothing to set",
        )
        used = f"{memory.in_words(answer['peak_memory_mebibytes'] * 2**20)} by these checks"
        if answer["device_memory_mebibytes"]:
            on_gpu = memory.in_words(answer["device_memory_mebibytes"] * 2**20)
            used += f", {on_gpu} of the GPU"
        yield Line("memory used", used)
        if self.gpus and images_per_second and images_per_second < speed:
            yield Line(
                "input for that net",
                f"the cores prepare {images_per_second:,.0f} images/s of the {speed:,.0f}",
                "more cores, smaller JPEGs, or images of one size",
            )

    def _unit_line(self, precision, jit, device):
        subject = f"{precision}{', XLA' if jit else ''}" + (
            f", {device}" if device not in ("CPU:0", "GPU:0") else ""
        )
        advice = _unit_advice(precision, jit, device)
        answer = self._answer(subject, "unit", precision=precision, jit=jit, device=device)
        if "errors" not in answer:
            return self._failure("unit", subject, answer, advice)
        tolerances, errors = TOLERANCES[precision], answer["errors"]
        words = ", ".join(
            f"{name} off by {errors[name]:.1g} (at most {tolerances[name]:g})"
            for name in tolerances
        )
        fine = all(errors[name] <= tolerances[name] for name in tolerances)
        return self._line("unit", subject, f"residual unit on {device}: {words}", fine, advice)

    def _variance_line(self, jit, device):
        subject = "BN's variance" + (", XLA" if jit else "")
        answer = self._answer(subject, "variance", jit=jit, device=device)
        advice = "train with --xla=off" if jit else "please report this line"
        if "relative_error" not in answer:
            return self._failure("variance", subject, answer, advice)
        error = answer["relative_error"]
        finding = (
            f"off by {error:.1g} (at most {VARIANCE_TOLERANCE:g}) up to a mean of 1,000 deviations"
        )
        return self._line("variance", subject, finding, error <= VARIANCE_TOLERANCE, advice)

    def _all_reduce_line(self):
        subject, count = "sum over GPUs", len(self.gpus)
        answer = self._answer(subject, "all_reduce", count=count)
        advice = "train with --devices=1, and look for NCCL's message with NCCL_DEBUG=INFO"
        if "sums" not in answer:
            return self._failure("all_reduce", subject, answer, advice)
        fine = answer["sums"] == [count * (count + 1) / 2] * count
        finding = f"all {count} have the same" if fine else f"they have {answer['sums']}"
        return self._line("all_reduce", subject, finding, fine, advice)

    def _training_line(self):
        subject = "training, as the CPU"
        answer = self._answer(subject, "trains_as_processor")
        advice = "train with --devices=cpu, and report this line"
        if "losses" not in answer:
            return self._failure("trains_as_processor", subject, answer, advice)
        gpu, cpu = answer["losses"]["gpu"], answer["losses"]["cpu"]
        finding = f"loss of ResNet-8 after 5 steps {gpu:.5f}, on the processor {cpu:.5f}"
        fine = abs(gpu - cpu) <= LOSS_TOLERANCE * abs(cpu)
        return self._line("trains_as_processor", subject, finding, fine, advice)

    def _input_lines(self):
        """Yields the line on JPEGs; returns the images a second that all cores prepare."""
        subject, cores = "JPEG input", machine.cores()
        answer = self._answer(subject, "input_speed", cores=cores)
        if "images_per_second" not in answer:
            yield self._failure("input_speed", subject, answer, "please report this line")
            return None
        speed = answer["images_per_second"]
        each = f" ({speed / cores:,.0f} a core)" if cores > 1 else ""
        yield Line(
            subject,
            f"{speed:,.0f} images/s{each}: 500 x 375 pixels decoded, cropped, resized to 224",
        )
        return speed

    def _answer(self, subject, name, **options):
        self._begin(subject)
        return self._ask(name, **options)

    def _line(self, trial, subject, finding, fine, advice):
        self.passed[trial] = self.passed.get(trial, True) and fine
        return Line(subject, finding, None if fine else advice)

    def _failure(self, trial, subject, answer, advice):
        self.passed[trial] = False
        if "late" in answer:
            seconds = answer["late"]
            finding = f"not finished in {seconds:.0f} seconds" if seconds else "no time left for it"
            # What hangs must be looked at. What is slow on a busy machine need not.
            optional = not seconds or trial in ("input_speed", "training_speed")
            return Line(subject, finding, f"{commands.door()} doctor --seconds=300", optional)
        return Line(subject, answer.get("error", "no answer"), advice)


def _unit_advice(precision, jit, device):
    if jit:
        return "train with --xla=off"
    if precision != "float32":
        return "train with --precision=float32"
    if device.startswith("GPU"):
        return f"{machine.gpu_install()}; until then train with --devices=cpu"
    return _REINSTALL


def _import_advice(answer):
    error = answer.get("error", "")
    if "KERAS_BACKEND" in error:
        return "export KERAS_BACKEND=tensorflow"
    if "keras.json" in error:
        return "mend or delete that file"
    if "SIGILL" in error:
        return "take another machine: TensorFlow's packages need a processor with AVX"
    if "ModuleNotFoundError" in error or "ImportError" in error:
        return extras.INSTALL
    return _REINSTALL
