"""Every flag of an analysis, checked in one place."""

import dataclasses

from etils import epath

from keras_preact.layers import BLOCKS, ORDERS, PROJECTIONS
from keras_preact.models import architectures
from keras_preact.support import options
from keras_preact.support.options import option
from keras_preact.support.paths import usable
from keras_preact.training import own_units
from keras_preact.training.config import CHECKPOINTS, TrainConfig

STUDIES = {
    "propagation": "signal and gradient in each unit, of new networks or a run (the default)",
    "initialisation": "gradients of new networks over several draws of the weights and depths",
    "lesion": "accuracy of a run without one of its units",
    "compare": "learning curves, final errors and gradients of runs: compare RUN RUN ...",
}

# Each draw builds a network.
MOST_DRAWS = 10_000

_OF_NETWORKS = ("depth", "unit", "shortcut", "block", "projection", "stem", "width_multiplier")


@dataclasses.dataclass(frozen=True)
class AnalysisConfig:
    """One analysis. The fields are its flags; `metadata["help"]` explains them.

    Raises:
        ValueError: if a value is outside its rule, or values contradict each other.
    """

    run_dir: str | None = option("network", "folder of a trained run")
    checkpoint: str = option("network", "checkpoint of the run", "newest", CHECKPOINTS)
    depth: tuple[int, ...] = option(
        "network", "weighted layers of new networks, separated by commas", (110,)
    )
    unit: tuple[str, ...] = option(
        "network",
        "orders of BN and ReLU, separated by commas",
        ("full_preactivation",),
        ORDERS,
        own=own_units.OWN,
    )
    shortcut: tuple[str, ...] = option(
        "network",
        "shortcuts, separated by commas, with arguments as in "
        "identity,constant_scaling:shortcut_scale=0.5:residual_scale=1",
        ("identity",),
    )
    block: str | None = option("network", "kind of residual unit; default: by depth", None, BLOCKS)
    projection: str | None = option(
        "network",
        "shortcut where dimensions change; default: the paper's choice",
        None,
        PROJECTIONS,
    )
    stem: str | None = option("network", "default: by depth", None, architectures.STEMS)
    width_multiplier: float = option("network", "multiplies the filters of every convolution", 1.0)

    dataset: str | None = option("data", "for new networks, as in train.py; default synthetic")
    data_dir: str | None = option("data", "as in train.py")
    image_size: int | None = option("data", "for new networks, as in train.py")
    images: int | None = option(
        "data",
        "number of images; default 64 training images, or 16 of more than 64x64 pixels; for "
        "lesions all evaluation images",
    )
    seed: int = option("data", "decides the initial weights and the choice of images", 0)
    draws: int = option("data", "of the initial weights in the initialisation study", 5)

    output_dir: str | None = option(
        "output", "folder of the page; default RUN_DIR/analysis/STUDY, or analysis/STUDY"
    )
    overwrite: bool = option("output", "replace an earlier analysis there", False)

    def __post_init__(self):
        options.check_choices(self)
        options.check_lists(self)
        options.check_range(self, ("images", "image_size"), least=1)
        options.check_range(self, ("draws",), least=1, most=MOST_DRAWS)
        options.check_range(self, ("seed",), least=0)
        self._check_run()
        self.train_configs()

    def _check_run(self):
        """Raises ValueError if flags ask for a run and for a new network."""
        own = ("dataset", "image_size", *_OF_NETWORKS)
        given = [
            field.name
            for field in dataclasses.fields(self)
            if field.name in own and getattr(self, field.name) != field.default
        ]
        if self.run_dir and given:
            raise ValueError(
                f"{', '.join(given)} {'is' if len(given) == 1 else 'are'} for new networks; a run "
                f"has its own. Received: run_dir={self.run_dir!r} as well"
            )

    def train_configs(self) -> list[TrainConfig]:
        """New networks of each depth, unit and shortcut, as configurations of their training.

        Raises:
            ValueError: as `TrainConfig` does.
        """
        return [
            self._network(depth, unit, *_split(shortcut))
            for depth in self.depth
            for unit in self.unit
            for shortcut in self.shortcut
        ]

    def _network(self, depth, unit, shortcut, arguments):
        return TrainConfig(
            depth=depth,
            unit=unit,
            shortcut=shortcut,
            shortcut_arguments=arguments,
            block=self.block,
            projection=self.projection if shortcut != "none" else None,
            stem=self.stem,
            width_multiplier=self.width_multiplier,
            seed=self.seed,
            dataset=self.dataset or "synthetic",
            data_dir=self.data_dir,
            image_size=self._size(depth),
        )

    def _size(self, depth):
        if self.image_size is None and self.dataset is None:
            plan = architectures.resolve(depth, self.stem, self.block)
            return plan.default_input_shape[0]
        return self.image_size

    def folder(self, study: str) -> epath.Path:
        """The folder of the page; raises ValueError if it cannot be one, as `paths.usable` does."""
        default = f"{self.run_dir}/analysis/{study}" if self.run_dir else f"analysis/{study}"
        return usable(self.output_dir or default, "output_dir")


def _split(shortcut):
    """Splits NAME:ARGUMENT=VALUE:... into the name and the arguments as TrainConfig takes them."""
    name, *arguments = shortcut.split(":")
    if arguments and "=" not in arguments[0]:  # the name of code in a file
        name = f"{name}:{arguments.pop(0)}"
    return name, ",".join(arguments)
