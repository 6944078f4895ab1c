"""Jobs, one for each process that measures: plain values that JSON can carry to any framework."""

import dataclasses

from keras_preact.benchmark.config import (
    BATCH_SIZES,
    BATCH_SIZES_ON_GPU,
    OF_EXPORTS,
    OF_TORCH,
    OVERHEAD_PIXELS,
    BenchmarkConfig,
)
from keras_preact.layers import Operation, UnitPlan
from keras_preact.models import architectures, describe


@dataclasses.dataclass(frozen=True)
class Net:
    """The network that `ResNetV2(depth)` is, spelled out for other frameworks.

    Args:
        depth: weighted layers.
        classes: of the logits.
        stem: the operations before the first unit.
        units: in order.
        head: the operations between the last unit and the global pooling.
    """

    depth: int
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
    """

    framework: str
    mode: str
    precision: str
    net: Net
    batch_size: int
    image_size: int
    steps: int | None
    xla: str = "auto"

    @property
    def image_shape(self) -> tuple[int, int, int]:
        return (self.image_size, self.image_size, 3)

    @property
    def operations_per_image(self) -> int:
        """Two for each multiply-add of convolutions and logits.

        Training does three times the work of inference: outputs, and gradients of the inputs
        and of the weights.
        """
        described = describe(self.net.depth, input_shape=self.image_shape, print_fn=None)
        return 2 * described.multiply_adds * (3 if self.mode == "train" else 1)


def make_net(depth: int) -> Net:
    """The network that `ResNetV2(depth)` is, from the same plan.

    Raises:
        ValueError: as `architectures.resolve` does.
    """
    architecture = architectures.resolve(depth)
    kind = architecture.unit_kind()
    return Net(
        depth,
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
    for depth in config.models:
        net, architecture = make_net(depth), architectures.resolve(depth)
        single = config.measures_server or config.measures_overhead
        batch_size = config.batch_size or (1 if single else batch_sizes[architecture.stem])
        image_size = config.image_size or architecture.default_input_shape[0]
        if config.measures_overhead:
            image_size = config.image_size or OVERHEAD_PIXELS[architecture.stem]
        jobs += [
            [
                Job(
                    *(framework, mode, precision, net, batch_size, image_size),
                    *(config.steps, config.xla),
                )
                for framework in config.chosen_frameworks
                # PyTorch writes nothing that TensorFlow Serving could load.
                if mode not in OF_EXPORTS or framework not in OF_TORCH
            ]
            for precision in config.precisions
            for mode in config.modes
        ]
    return [group for group in jobs if group]
