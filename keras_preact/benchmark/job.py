"""What one process measures, as plain values that JSON can carry to any framework."""

import dataclasses

from keras_preact.benchmark.config import BATCH_SIZES, BenchmarkConfig
from keras_preact.layers import BLOCKS
from keras_preact.models import architectures, describe


@dataclasses.dataclass(frozen=True)
class Unit:
    """A full-pre-activation residual unit, spelled out for frameworks that have none.

    Args:
        name: as in our models, such as stage1_unit1.
        convolutions: (filters, kernel size, strides) of each, first to last.
        channels: of its output.
        strides: of the whole unit.
        match: how the shortcut meets the residual: "identity", "zero_pad" or "convolution".
        shares_preactivation: whether the shortcut starts from the pre-activated input.
    """

    name: str
    convolutions: tuple[tuple[int, int, int], ...]
    channels: int
    strides: int
    match: str
    shares_preactivation: bool


@dataclasses.dataclass(frozen=True)
class Net:
    """A network, spelled out likewise."""

    depth: int
    stem: str
    stem_filters: int
    units: tuple[Unit, ...]
    classes: int

    @property
    def name(self) -> str:
        return f"resnet{self.depth}"


@dataclasses.dataclass(frozen=True)
class Job:
    """What one process measures.

    Args:
        framework: one of `config.FRAMEWORKS`.
        mode: one of `config.MODES`.
        precision: the name of a Keras dtype policy.
        net: the network.
        batch_size: images in a step.
        image_size: height and width in pixels; there are three channels.
        steps: timed steps.
    """

    framework: str
    mode: str
    precision: str
    net: Net
    batch_size: int
    image_size: int
    steps: int

    @property
    def image_shape(self) -> tuple[int, int, int]:
        return (self.image_size, self.image_size, 3)

    @property
    def operations_per_image(self) -> int:
        """Two for each multiply-add of convolutions and logits; training does three times the
        work of inference: outputs, and gradients of the inputs and of the weights."""
        described = describe(self.net.depth, input_shape=self.image_shape, print_fn=None)
        return 2 * described.multiply_adds * (3 if self.mode == "train" else 1)


def make_net(depth: int) -> Net:
    """The network that `ResNetV2(depth)` is, from the same table.

    Raises:
        ValueError: as `architectures.resolve` does.
    """
    plan = architectures.resolve(depth)
    kernel_sizes, expansion = BLOCKS[plan.block]
    units, channels = [], plan.stem_filters
    for unit in plan.units():
        filters = [unit.filters] * (len(kernel_sizes) - 1) + [unit.filters * expansion]
        strides = [
            unit.strides if number == plan.strided_convolution else 1
            for number in range(1, len(kernel_sizes) + 1)
        ]
        changes = unit.strides > 1 or channels != filters[-1]
        channels = filters[-1]
        units.append(
            Unit(
                unit.name,
                tuple(zip(filters, kernel_sizes, strides, strict=True)),
                channels,
                unit.strides,
                plan.projection(None) if changes else "identity",
                unit.first_in_network or changes,
            )
        )
    return Net(depth, plan.stem, plan.stem_filters, tuple(units), plan.classes(None))


def make_jobs(config: BenchmarkConfig) -> list[list[Job]]:
    """For each model, precision and mode, a job for each framework."""
    jobs = []
    for net in map(make_net, config.models):
        default_size = architectures.resolve(net.depth).default_input_shape[0]
        sizes = (config.batch_size or BATCH_SIZES[net.stem], config.image_size or default_size)
        jobs += [
            [
                Job(framework, mode, precision, net, *sizes, config.steps)
                for framework in config.chosen_frameworks
                # PyTorch writes nothing that TensorFlow Serving could load.
                if mode != "serving" or framework != "torch"
            ]
            for precision in config.precisions
            for mode in config.modes
            if mode != "serving" or precision == "float32"
        ]
    return [group for group in jobs if group]
