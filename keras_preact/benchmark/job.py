"""Jobs, one for each process that measures: plain values that JSON can carry to any framework."""

import dataclasses

from keras_preact.benchmark.config import (
    BATCH_SIZES,
    BATCH_SIZES_ON_GPU,
    OF_EXPORTS,
    OF_TORCH,
    OVERHEAD_PIXELS,
    SCALING_BATCH_SIZE,
    SCALING_LEAST_STEPS,
    BenchmarkConfig,
)
from keras_preact.benchmark.measure import LEAST_STEPS
from keras_preact.layers import Operation, UnitPlan
from keras_preact.models import Description, architectures, describe


@dataclasses.dataclass(frozen=True)
class Net:
    """The network that `ResNetV2(depth, block=block)` is, spelled out for other frameworks.

    Args:
        depth: weighted layers.
        block: name of the units' block.
        classes: of the logits.
        stem: the operations before the first unit.
        units: in order.
        head: the operations between the last unit and the global pooling.
    """

    depth: int
    block: str
    classes: int
    stem: tuple[Operation, ...]
    units: tuple[UnitPlan, ...]
    head: tuple[Operation, ...]

    @property
    def name(self) -> str:
        return f"resnet{self.depth}"


@dataclasses.dataclass(frozen=True)
class Job:
    """One measurement.

    Args:
        framework: one of `config.FRAMEWORKS`.
        mode: one of `config.MODES`.
        precision: the name of a Keras dtype policy.
        net: the network.
        batch_size: images in a step.
        image_size: height and width in pixels; there are three channels.
        steps: timed steps; None for as many as `measure.timed` takes.
        xla: "auto", "on" or "off", of keras_preact.
        unit_loops: the same.
        remat: what training computes twice: of keras_preact as its flag says; of torch "none" or
            "unit".
        least_steps: timed where steps is None.
    """

    framework: str
    mode: str
    precision: str
    net: Net
    batch_size: int
    image_size: int
    steps: int | None
    xla: str = "auto"
    unit_loops: str = "auto"
    remat: str = "none"
    least_steps: int = LEAST_STEPS

    @property
    def label(self) -> str:
        return label(self.framework, self.remat)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        return (self.image_size, self.image_size, 3)

    @property
    def operations_per_image(self) -> int:
        """Two for each multiply-add of convolutions and logits.

        Training does three times the work of inference: outputs, and gradients of the inputs
        and of the weights.
        """
        return 2 * self.describe().multiply_adds * (3 if self.mode == "train" else 1)

    def describe(self) -> Description:
        """What the network costs by closed formulas."""
        options = {"block": self.net.block, "input_shape": self.image_shape}
        return describe(self.net.depth, **options, print_fn=None)


def label(framework: str, remat: str) -> str:
    """The name of a framework with what it computes twice: "torch remat=unit"."""
    return framework if remat == "none" else f"{framework} remat={remat}"


def make_net(depth: int, block: str | None = None) -> Net:
    """The network that `ResNetV2(depth, block=block)` is, from the same plan.

    Raises:
        ValueError: as `architectures.resolve` does.
    """
    architecture = architectures.resolve(depth, block=block)
    kind = architecture.unit_kind()
    return Net(
        depth,
        architecture.block,
        architecture.classes(None),
        stem=architecture.stem_operations(kind.order),
        units=tuple(architecture.units(kind)),
        head=architecture.head_operations(kind.order),
    )


def make_jobs(config: BenchmarkConfig, on_gpu: bool = False) -> list[list[Job]]:
    """For each model, precision and mode, a job for each framework.

    Args:
        config: names them.
        on_gpu: whether they run on a GPU, for which batches are larger by default.
    """
    jobs, batch_sizes = [], BATCH_SIZES_ON_GPU if on_gpu else BATCH_SIZES
    for depth in config.chosen_models:
        net = make_net(depth, config.chosen_block(depth))
        architecture = architectures.resolve(depth, block=net.block)
        single = config.measures_server or config.measures_overhead
        batch_size = config.batch_size or (1 if single else batch_sizes[architecture.stem])
        image_size = config.image_size or architecture.default_input_shape[0]
        if config.measures_overhead:
            image_size = config.image_size or OVERHEAD_PIXELS[architecture.stem]
        [remat] = config.chosen_remat
        ours = {"xla": config.xla, "unit_loops": config.unit_loops, "remat": remat}
        jobs += [
            [
                Job(
                    *(framework, mode, precision, net, batch_size, image_size, config.steps),
                    **(ours if framework == "keras_preact" else {}),
                )
                for framework in config.chosen_frameworks
                # PyTorch writes nothing that TensorFlow Serving could load.
                if mode not in OF_EXPORTS or framework not in OF_TORCH
            ]
            for precision in config.chosen_precisions
            for mode in config.modes
        ]
    return [group for group in jobs if group]


def make_scaling_jobs(config: BenchmarkConfig) -> list[list[Job]]:
    """For each precision and depth, from the shallowest, the jobs of mode scaling.

    They train with keras_preact in each way to recompute, with stock Keras, and with PyTorch,
    which recomputes every unit as well where keras_preact recomputes any.
    """
    groups = []
    for precision in config.chosen_precisions:
        for depth in sorted(config.chosen_models):
            net = make_net(depth, config.chosen_block(depth))
            stem = architectures.resolve(depth, block=net.block).stem
            image_size = config.image_size or architectures.STEMS[stem].image_pixels
            batch_size = config.batch_size or SCALING_BATCH_SIZE
            common = ("train", precision, net, batch_size, image_size, config.steps)
            groups.append(
                [
                    Job(framework, *common, **options, least_steps=SCALING_LEAST_STEPS)
                    for framework, options in _variants(config)
                ]
            )
    return groups


def _variants(config):
    for framework in config.chosen_frameworks:
        if framework == "keras_preact":
            ours = {"xla": config.xla, "unit_loops": config.unit_loops}
            yield from ((framework, {**ours, "remat": remat}) for remat in config.chosen_remat)
            continue
        yield framework, {}
        if framework == "torch" and set(config.chosen_remat) != {"none"}:
            yield framework, {"remat": "unit"}
