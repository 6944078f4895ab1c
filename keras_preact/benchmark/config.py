"""The flags of a benchmark, checked in one place."""

import dataclasses
import importlib.util
import os
import shutil

from etils import epath

from keras_preact.data import datasets
from keras_preact.layers import BLOCKS
from keras_preact.models import architectures
from keras_preact.models.architectures import IMAGENET_DEPTHS, cifar_blocks
from keras_preact.support import options
from keras_preact.support.options import option
from keras_preact.support.paths import usable
from keras_preact.support.text import shown
from keras_preact.training.config import REMAT, XLA

FRAMEWORKS = ("keras_preact", "keras", "torch", "torch_compile")
# Run by PyTorch, eager and compiled.
OF_TORCH = ("torch", "torch_compile")
MODES = ("train", "inference", "serving", "server", "input", "overhead", "scaling")
# Their tables have columns of their own.
ALONE = ("server", "input", "overhead", "scaling")
# They measure exports, which PyTorch does not write.
OF_EXPORTS = ("serving", "server")
BATCHING = ("written", "none")
PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16")

DEPTHS = (164, 50)
# Two cores finish these in minutes; a GPU needs larger ones to be busy.
BATCH_SIZES = {"cifar": 128, "imagenet": 16}
BATCH_SIZES_ON_GPU = {"cifar": 128, "imagenet": 256}
# Overhead does not depend on the arithmetic, which would drown it.
OVERHEAD_PIXELS = {"cifar": 8, "imagenet": 32}
# Basic nets from the first of the paper to its deepest, and bottleneck nets between.
SCALING_DEPTHS = (20, 110, 164, 326, 1001, 1202)
SCALING_BATCH_SIZE = 32
# Enough to tell what a step takes in nets of which one takes seconds.
SCALING_LEAST_STEPS = 3
# More would not improve a figure.
MOST_ROUNDS = 1_000
MOST_STEPS = 100_000
MOST_SECONDS = 3_600
MOST_MINUTES = 1_440
# Each is a thread with a connection.
MOST_CLIENTS = 1_000


@dataclasses.dataclass(frozen=True)
class BenchmarkConfig:
    """One benchmark. The fields are its flags; `metadata["help"]` says what they mean.

    Raises:
        ValueError: if a value is outside its rule, or needs a package that is not installed.
    """

    models: tuple[int, ...] | None = option(
        "what",
        "depths of pre-activation nets; default: 164,50, for mode scaling "
        + ",".join(map(str, SCALING_DEPTHS)),
    )
    block: str | None = option(
        "what",
        "convolutions of a unit; default: by depth, for mode scaling bottleneck where several fit",
        None,
        BLOCKS,
    )
    precisions: tuple[str, ...] | None = option(
        "what",
        "separated by commas; default: float32,mixed_bfloat16, for mode scaling float32",
        None,
        PRECISIONS,
    )
    modes: tuple[str, ...] = option(
        "what",
        "separated by commas; serving: an export in a session; server, alone: exports in the "
        "program of --server; input, alone: reading and augmenting photographs; overhead, alone: "
        "training steps beyond their compiled function; scaling, alone: start, step and memory of "
        "training against depth",
        MODES[:2],
        MODES,
    )
    frameworks: tuple[str, ...] | None = option(
        "what", "separated by commas; default: those installed", None, FRAMEWORKS
    )
    batch_size: int | None = option(
        "what",
        "images; default 128, of ImageNet nets 16, on a GPU 256; for mode scaling 32, for mode "
        "overhead 1",
    )
    image_size: int | None = option(
        "what", "pixels; default 32, of ImageNet nets 224; 8 and 32 for mode overhead"
    )
    xla: str = option("what", "compile keras_preact with XLA, as in training", "auto", XLA)
    remat: tuple[str, ...] | None = option(
        "what",
        "what keras_preact computes twice in training; for mode scaling one or more, separated by "
        "commas; default: none, for mode scaling none,auto",
        None,
        [name for name in REMAT if name != "group"],
    )
    unit_loops: str = option(
        "what", "compute equal units of keras_preact as one loop, as in training", "auto", XLA
    )

    data_dir: str | None = option(
        "what", "folder of photographs, train/CLASS/IMAGE, for mode input; default: some are made"
    )

    rounds: int = option("how", "processes that measure each figure; it is their median", 3)
    steps: int | None = option(
        "how", "timed steps of each process; default: 10, or as many as take 5 seconds"
    )

    most_minutes: int = option(
        "how", "minutes after which a process of mode scaling is stopped and counts as failed", 15
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
    plot: str | None = option(
        "output", "a PNG with a bar for each throughput, or lines against the depth"
    )

    def __post_init__(self):
        options.check_choices(self)
        options.check_lists(self)
        for depth in self.chosen_models:
            try:
                architectures.resolve(depth, block=self.chosen_block(depth))
            except ValueError as error:
                raise ValueError(f"models must be depths of networks: {error}") from None
        options.check_range(self, ("batch_size", "image_size"), least=1)
        options.check_range(self, ("rounds",), least=1, most=MOST_ROUNDS)
        options.check_range(self, ("steps",), least=1, most=MOST_STEPS)
        options.check_range(self, ("most_minutes",), least=1, most=MOST_MINUTES)
        self._check_alone()
        self._check_server()
        self._check_input()
        self._check_recomputation()
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

    def _check_alone(self):
        for mode in ALONE:
            if mode in self.modes and len(self.modes) > 1:
                raise ValueError(
                    f"modes must be {mode} alone where they name it, as its table has other "
                    f"columns. Received: modes={','.join(self.modes)}"
                )

    def _check_recomputation(self):
        remat = self.chosen_remat
        if len(remat) > 1 and not self.measures_scaling:
            raise ValueError(
                "remat takes one value, and with --modes=scaling several. Received: "
                f"remat={','.join(remat)}"
            )
        if self.unit_loops == "off" and remat != ("none",):
            raise ValueError(
                "remat recomputes units in loops: give --remat=none with --unit_loops=off. "
                f"Received: remat={','.join(remat)}, unit_loops=off"
            )
        if self.measures_scaling and "torch_compile" in (self.frameworks or ()):
            raise ValueError(
                "frameworks of --modes=scaling must be keras_preact, keras or torch: compiling a "
                "deep net with torch_compile takes hours. Received: "
                f"frameworks={','.join(self.frameworks)}"
            )

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
    def measures_scaling(self) -> bool:
        """Whether training is measured against the depth, alone."""
        return "scaling" in self.modes

    @property
    def chosen_models(self) -> tuple[int, ...]:
        """The depths given, or those of the modes."""
        return self.models or (SCALING_DEPTHS if self.measures_scaling else DEPTHS)

    def chosen_block(self, depth: int) -> str | None:
        """The block given; None for the one of the depth alone."""
        fits_several = depth not in IMAGENET_DEPTHS and len(cifar_blocks(depth)) > 1
        if fits_several and self.measures_scaling and self.block is None:
            return "bottleneck"
        return self.block

    @property
    def chosen_precisions(self) -> tuple[str, ...]:
        """The precisions given, or those of the modes."""
        return self.precisions or PRECISIONS[: 1 if self.measures_scaling else 2]

    @property
    def chosen_remat(self) -> tuple[str, ...]:
        """The ways to recompute that are given, or those of the modes."""
        several = self.measures_scaling and self.unit_loops != "off"
        return self.remat or (("none", "auto") if several else ("none",))

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
        if self.measures_scaling:
            del needed["torch_compile"]
        installed = (name for name, module in needed.items() if _installed(module))
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
