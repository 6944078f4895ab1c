"""The flags of a benchmark, checked in one place."""

import dataclasses
import importlib.util
import os
import shutil

from etils import epath

from keras_preact.data import datasets
from keras_preact.models import architectures
from keras_preact.support import options
from keras_preact.support.options import option
from keras_preact.support.paths import usable
from keras_preact.support.text import shown
from keras_preact.training.config import XLA

FRAMEWORKS = ("keras_preact", "keras", "torch", "torch_compile")
# Run by PyTorch, eager and compiled.
OF_TORCH = ("torch", "torch_compile")
MODES = ("train", "inference", "serving", "server", "input", "overhead")
# They measure exports, which PyTorch does not write.
OF_EXPORTS = ("serving", "server")
BATCHING = ("written", "none")
PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16")

# Two cores finish these in minutes; a GPU needs larger ones to be busy.
BATCH_SIZES = {"cifar": 128, "imagenet": 16}
BATCH_SIZES_ON_GPU = {"cifar": 128, "imagenet": 256}
# Overhead does not depend on the arithmetic, which would drown it.
OVERHEAD_PIXELS = {"cifar": 8, "imagenet": 32}
# More would not improve a figure.
MOST_ROUNDS = 1_000
MOST_STEPS = 100_000
MOST_SECONDS = 3_600
# Each is a thread with a connection.
MOST_CLIENTS = 1_000


@dataclasses.dataclass(frozen=True)
class BenchmarkConfig:
    """One benchmark. The fields are its flags; `metadata["help"]` says what they mean.

    Raises:
        ValueError: if a value is outside its rule, or needs a package that is not installed.
    """

    models: tuple[int, ...] = option("what", "depths of pre-activation nets", (164, 50))
    precisions: tuple[str, ...] = option(
        "what", "separated by commas", ("float32", "mixed_bfloat16"), PRECISIONS
    )
    modes: tuple[str, ...] = option(
        "what",
        "separated by commas; serving: an export in a session; server, alone: exports in the "
        "program of --server; input, alone: reading and augmenting photographs; overhead, alone: "
        "training steps beyond their compiled function",
        MODES[:2],
        MODES,
    )
    frameworks: tuple[str, ...] | None = option(
        "what", "separated by commas; default: those installed", None, FRAMEWORKS
    )
    batch_size: int | None = option(
        "what", "images; default 128, of ImageNet nets 16, on a GPU 256; 1 for mode overhead"
    )
    image_size: int | None = option(
        "what", "pixels; default 32, of ImageNet nets 224; 8 and 32 for mode overhead"
    )
    xla: str = option("what", "compile keras_preact with XLA, as in training", "auto", XLA)

    data_dir: str | None = option(
        "what", "folder of photographs, train/CLASS/IMAGE, for mode input; default: some are made"
    )

    rounds: int = option("how", "processes that measure each figure; it is their median", 3)
    steps: int | None = option(
        "how", "timed steps of each process; default: 10, or as many as take 5 seconds"
    )

    server: str | None = option("server", "path of tensorflow_model_server, for mode server")
    clients: tuple[int, ...] = option("server", "clients that ask at the same time", (1, 8, 64))
    seconds: int = option("server", "of each load in each round, after a warm-up", 5)
    batching: tuple[str, ...] = option(
        "server",
        "separated by commas: written (as exports come), none, or a file of batching parameters",
        BATCHING,
    )
    broken_clients: int = option(
        "server",
        "further clients, which send files that cannot be decoded; their answers do not count",
        0,
    )

    csv: str = option("output", "file of all figures; an earlier one is replaced", "benchmark.csv")
    plot: str | None = option("output", "a PNG with a bar for each throughput")

    def __post_init__(self):
        options.check_choices(self)
        options.check_lists(self)
        for depth in self.models:
            try:
                architectures.resolve(depth)
            except ValueError as error:
                raise ValueError(f"models must be depths of networks: {error}") from None
        options.check_range(self, ("batch_size", "image_size"), least=1)
        options.check_range(self, ("rounds",), least=1, most=MOST_ROUNDS)
        options.check_range(self, ("steps",), least=1, most=MOST_STEPS)
        self._check_server()
        self._check_input()
        if self.measures_overhead:
            self._check_overhead()
        if set(OF_TORCH) & set(self.frameworks or ()) and not _installed("torch"):
            raise ValueError(
                "frameworks can name torch and torch_compile where PyTorch is installed. Received: "
                f"frameworks={','.join(self.frameworks)}; pip install torch"
            )
        if self.plot is not None and not _installed("matplotlib"):
            raise ValueError("plot needs matplotlib: pip install matplotlib")
        _check_file("csv", self.csv, ".csv")
        if self.plot is not None:
            _check_file("plot", self.plot, ".png")

    def _check_server(self):
        options.check_range(self, ("seconds",), least=1, most=MOST_SECONDS)
        options.check_range(self, ("broken_clients",), least=0, most=MOST_CLIENTS)
        if not all(1 <= clients <= MOST_CLIENTS for clients in self.clients):
            raise ValueError(
                f"clients must be numbers from 1 to {MOST_CLIENTS}, separated by commas. "
                f"Received: clients={','.join(map(str, self.clients))}"
            )
        if not self.measures_server:
            if self.server is not None:
                raise ValueError(
                    f"server goes with --modes=server. Received: server={shown(self.server)}"
                )
            return
        if self.modes != ("server",):
            raise ValueError(
                "modes must be server alone where they name it, as its table has other columns. "
                f"Received: modes={','.join(self.modes)}"
            )
        if self.frameworks and set(self.frameworks) <= set(OF_TORCH):
            raise ValueError(
                "frameworks must name keras_preact or keras with --modes=server, as PyTorch "
                "writes nothing that TensorFlow Serving loads. Received: "
                f"frameworks={','.join(self.frameworks)}"
            )
        if self.batch_size not in (None, 1):
            raise ValueError(
                "batch_size must be 1 with --modes=server, as a request has one image. "
                f"Received: batch_size={self.batch_size}"
            )
        if self.plot is not None:
            raise ValueError(
                "plot draws images/s, which --modes=server does not measure: use the columns of "
                f"--csv. Received: plot={self.plot}"
            )
        if self.program is None:
            raise ValueError(
                "server must be the path of a program that you may start, such as "
                f"/usr/bin/tensorflow_model_server. Received: server={shown(self.server or '')}"
            )
        for batching in self.batching:
            if batching not in BATCHING and not usable(batching, "batching", True).is_file():
                raise ValueError(
                    f"batching must be {', '.join(BATCHING)} or files of batching parameters, "
                    f"separated by commas. Received: batching={shown(batching)}"
                )

    def _check_input(self):
        if not self.measures_input:
            if self.data_dir is not None:
                raise ValueError(
                    f"data_dir goes with --modes=input. Received: data_dir={shown(self.data_dir)}"
                )
            return
        if self.modes != ("input",):
            raise ValueError(
                "modes must be input alone where they name it, as its table has other columns. "
                f"Received: modes={','.join(self.modes)}"
            )
        if self.plot is not None:
            raise ValueError(
                "plot draws the throughput of networks, which --modes=input does not measure: use "
                f"the columns of --csv. Received: plot={self.plot}"
            )
        if self.data_dir is not None:
            datasets.check("folder", self.data_dir)

    @property
    def measures_input(self) -> bool:
        """Whether reading and augmenting are measured, alone."""
        return "input" in self.modes

    def _check_overhead(self):
        if self.modes != ("overhead",):
            raise ValueError(
                "modes must be overhead alone where they name it, as its table has other columns. "
                f"Received: modes={','.join(self.modes)}"
            )
        if self.frameworks not in (None, ("keras_preact",)):
            raise ValueError(
                "frameworks must be keras_preact with --modes=overhead, as it looks inside the "
                f"training step. Received: frameworks={','.join(self.frameworks)}"
            )
        if self.plot is not None:
            raise ValueError(
                "plot draws images/s, which --modes=overhead does not measure: use the columns of "
                f"--csv. Received: plot={self.plot}"
            )

    @property
    def measures_overhead(self) -> bool:
        """Whether the time of training steps beyond their compiled function is measured, alone."""
        return "overhead" in self.modes

    @property
    def measures_server(self) -> bool:
        """Whether a model server is loaded, alone."""
        return "server" in self.modes

    @property
    def program(self) -> str | None:
        """The path of the server's program; None if there is none that can be started."""
        return shutil.which(os.path.expanduser(self.server or ""))

    @property
    def chosen_frameworks(self) -> tuple[str, ...]:
        """The frameworks given, or those installed; for mode overhead ours alone."""
        if self.measures_overhead:
            return ("keras_preact",)
        needed = {name: "torch" if name in OF_TORCH else "keras" for name in FRAMEWORKS}
        installed = (name for name in FRAMEWORKS if _installed(needed[name]))
        return self.frameworks or tuple(installed)

    @property
    def csv_path(self) -> epath.Path:
        return usable(self.csv, "csv", wildcards=True)

    @property
    def plot_path(self) -> epath.Path | None:
        return usable(self.plot, "plot", wildcards=True) if self.plot else None


def _check_file(name, path, suffix):
    # Before hours of measuring, not after them.
    expanded = usable(path, name, wildcards=True)
    # os.access cannot ask buckets.
    writable = "://" in path or os.access(expanded.parent, os.W_OK)
    if expanded.suffix != suffix or expanded.is_dir() or not expanded.parent.is_dir():
        rule = f"a file that ends in {suffix}, in a folder that exists"
    elif not writable:
        rule = "a file in a folder that you may write to"
    else:
        return
    raise ValueError(f"{name} must be {rule}. Received: {name}={path}")


def _installed(module):
    return importlib.util.find_spec(module) is not None
