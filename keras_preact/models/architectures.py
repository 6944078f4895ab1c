"""Units and filters of each stage, by depth."""

import dataclasses
import math
import sys
from collections.abc import Iterator

from keras_preact.layers import (
    BLOCKS,
    LAYOUTS,
    ORDERS,
    PROJECTIONS,
    ActivationOrder,
    Operation,
    UnitKind,
    UnitPlan,
)
from keras_preact.layers.unit_plan import named
from keras_preact.support.choices import one_of

# Units per stage. Source: "Deep Residual Learning for Image Recognition", table 1; 200
# from "Identity Mappings in Deep Residual Networks", section 5.
IMAGENET_DEPTHS = {
    18: ("basic", (2, 2, 2, 2)),
    34: ("basic", (3, 4, 6, 3)),
    50: ("bottleneck", (3, 4, 6, 3)),
    101: ("bottleneck", (3, 4, 23, 3)),
    152: ("bottleneck", (3, 8, 36, 3)),
    200: ("bottleneck", (3, 24, 36, 3)),
}

# The papers' CIFAR nets, for depths that fit the formulas of several blocks.
CIFAR_BLOCKS = {
    **dict.fromkeys((20, 32, 44, 56, 110, 1202), "basic"),
    **dict.fromkeys((164, 1001), "bottleneck"),
}


@dataclasses.dataclass(frozen=True)
class StemPlan:
    """The layers before the first unit, and the images that they are made for.

    Args:
        kernel_size: of the convolution, in pixels.
        strides: of the convolution.
        filters: of the convolution and of the first stage, at width 1.
        strided_bottleneck_convolution: which convolution of a bottleneck unit has the
            stride: the 3x3 of ImageNet's, the first 1x1 of CIFAR's, as in the authors' code.
        image_pixels: height and width of an image by default.
        classes: by default.
        pooling: the max-pooling that follows, if any.
    """

    kernel_size: int
    strides: int
    filters: int
    strided_bottleneck_convolution: int
    image_pixels: int
    classes: int
    pooling: tuple[Operation, ...] = ()


STEMS = {
    "cifar": StemPlan(3, 1, 16, strided_bottleneck_convolution=1, image_pixels=32, classes=10),
    "imagenet": StemPlan(
        7,
        2,
        64,
        strided_bottleneck_convolution=2,
        image_pixels=224,
        classes=1000,
        pooling=(Operation("max_pool", "stem_pool", kernel_size=3, strides=2),),
    ),
}

# TensorFlow holds the length of an axis in 32 bits in many places.
MOST_CHANNELS = 2**31 - 1
# Python calls left for the caller of a builder and for Keras around each layer.
_OTHER_CALLS = 100


@dataclasses.dataclass(frozen=True)
class Architecture:
    """A residual network, less its kind of unit.

    Args:
        depth: number of weighted layers on the longest path, projections not counted.
        stem: a key of `STEMS`.
        block: a key of `keras_preact.layers.BLOCKS`.
        stage_units: residual units in each stage.
        stage_filters: filters of the inner convolutions in each stage.
        stem_filters: filters of the stem's convolution.
        layout: a key of `keras_preact.layers.LAYOUTS`.
    """

    depth: int
    stem: str
    block: str
    stage_units: tuple[int, ...]
    stage_filters: tuple[int, ...]
    stem_filters: int
    layout: str = "paper"

    def unit_kind(
        self,
        order: ActivationOrder = ORDERS["full_preactivation"],
        projection: str | None = None,
        matches_dimensions: bool = False,
    ) -> UnitKind:
        """The kind of unit of this network, with the stride where the authors have it.

        Args:
            order: of BN and ReLU.
            projection: a name, or None for the papers' choice.
            matches_dimensions: as for `UnitKind`.

        Raises:
            ValueError: if the projection is unknown.
        """
        is_bottleneck = self.block == "bottleneck"
        strided = STEMS[self.stem].strided_bottleneck_convolution if is_bottleneck else 1
        projection = self.projection(projection)
        return UnitKind(self.block, order, projection, strided, matches_dimensions, self.layout)

    def units(self, kind: UnitKind) -> Iterator[UnitPlan]:
        """The units in order. Between two stages the image is halved, as the layout says.

        They are named stage1_unit1 and so on.
        """
        channels, layout = self.stem_filters, LAYOUTS[self.layout]
        stages = zip(self.stage_units, self.stage_filters, strict=True)
        for stage, (count, filters) in enumerate(stages, 1):
            for number in range(1, count + 1):
                if layout.strides_last:
                    halves = stage < len(self.stage_units) and number == count
                else:
                    halves = stage > 1 and number == 1
                strides = 2 if halves else 1
                is_first = stage == number == 1 and layout.activated_first_shortcut
                name = f"stage{stage}_unit{number}"
                plan = kind.plan(channels, filters, strides, is_first, name)
                channels = plan.output_channels
                yield plan

    def stem_operations(self, order: ActivationOrder) -> tuple[Operation, ...]:
        """The operations before the first unit.

        Those after the first convolution of an order follow the stem's convolution too.
        """
        stem, layout = STEMS[self.stem], LAYOUTS[self.layout]
        options = {"strides": stem.strides, "use_bias": layout.biases}
        conv = Operation("conv", "stem_conv", self.stem_filters, stem.kernel_size, **options)
        pooling = (
            dataclasses.replace(operation, zero_padded=layout.zero_padded_pool)
            for operation in stem.pooling
        )
        return (conv, *named("stem", order.stem_completion, layout), *pooling)

    def head_operations(self, order: ActivationOrder) -> tuple[Operation, ...]:
        """The activation between the last unit and the global pooling."""
        return named("head", order.preactivation, LAYOUTS[self.layout])

    @property
    def default_input_shape(self) -> tuple[int, int, int]:
        pixels = STEMS[self.stem].image_pixels
        return (pixels, pixels, 3)

    def last_size(self, size: int) -> int:
        """Pixels of the height or width of an image that the last stage sees."""
        stem = STEMS[self.stem]
        strides = stem.strides * math.prod(operation.strides for operation in stem.pooling)
        return -(-size // (strides * 2 ** (len(self.stage_units) - 1)))

    def classes(self, asked: int | None) -> int:
        """The number of classes asked for, or the data set's that the stem is made for.

        Raises:
            ValueError: if it is not above 0.
        """
        if asked is None:
            return STEMS[self.stem].classes
        if not (isinstance(asked, int) and asked > 0):
            raise ValueError(f"classes must be a whole number above 0. Received: classes={asked!r}")
        return asked

    def projection(self, asked: str | None) -> str:
        """The projection asked for, or the papers' choice: parameter-free on CIFAR, but
        for bottleneck units.

        Raises:
            ValueError: if the name is unknown.
        """
        if asked is not None:
            return one_of("projection", asked, PROJECTIONS)
        return "zero_pad" if self.stem == "cifar" and self.block != "bottleneck" else "convolution"


def resolve(
    depth: int,
    stem: str | None = None,
    block: str | None = None,
    width_multiplier: float = 1.0,
    layout: str = "paper",
) -> Architecture:
    """The architecture of a depth.

    Args:
        depth: 18, 34, 50, 101, 152 or 200 with the ImageNet stem; with the CIFAR
            stem 6n+2 (basic), 9n+2 (bottleneck) or 3n+2 (single).
        stem: "cifar" or "imagenet"; by default "imagenet" for an ImageNet depth.
        block: "basic", "bottleneck" or "single"; by default the paper's block of
            this depth, else the one of basic and bottleneck whose formula it fits.
        width_multiplier: multiplies the filters of every convolution, the stem's too.
        layout: a name in `keras_preact.layers.LAYOUTS`.

    Raises:
        ValueError: if a name is unknown, depth is not reachable with this stem and
            block, fits several blocks and none was given, or is deeper than Keras can
            follow; or if width_multiplier is not above 0, or gives more channels than
            TensorFlow can count.
    """
    if isinstance(depth, bool) or not isinstance(depth, int):
        raise ValueError(f"depth must be a whole number. Received: depth={depth!r}")
    if not width_multiplier > 0:
        raise ValueError(
            f"width_multiplier must be above 0. Received: width_multiplier={width_multiplier}"
        )
    if stem is None:
        stem = "imagenet" if depth in IMAGENET_DEPTHS else "cifar"
    one_of("stem", stem, STEMS)
    one_of("layout", layout, LAYOUTS)
    if block is not None:
        one_of("block", block, BLOCKS)
    find = _imagenet_units if stem == "imagenet" else _cifar_units
    block, units = find(depth, block)
    _check_units(depth, block, units)
    first = STEMS[stem].filters
    widths = [first * 2**stage for stage in range(len(units))]
    largest = MOST_CHANNELS / (widths[-1] * BLOCKS[block][1])
    if width_multiplier > largest:
        raise ValueError(
            f"width_multiplier must be at most {largest:.0f} with {block} units, or convolutions "
            f"would have more than {MOST_CHANNELS} channels. "
            f"Received: width_multiplier={width_multiplier}"
        )
    stem_filters, *filters = (max(1, round(width * width_multiplier)) for width in [first, *widths])
    return Architecture(depth, stem, block, units, tuple(filters), stem_filters, layout)


def _check_units(depth, block, units):
    """Refuses more units than Keras can follow from the output back to the images."""
    most = sys.getrecursionlimit() - _OTHER_CALLS
    if sum(units) > most:
        raise ValueError(
            f"depth must be of at most {most} units: Keras follows them recursively, and "
            f"sys.getrecursionlimit() is {sys.getrecursionlimit()}. "
            f"Received: depth={depth}, of {sum(units)} {block} units"
        )


def _imagenet_units(depth, block):
    if depth not in IMAGENET_DEPTHS:
        raise ValueError(
            f"depth with stem='imagenet' must be one of {', '.join(map(str, IMAGENET_DEPTHS))}. "
            f"Received: depth={depth}"
        )
    table_block, units = IMAGENET_DEPTHS[depth]
    if block not in (None, table_block):
        raise ValueError(
            f"depth={depth} with stem='imagenet' is a net of {table_block} units. "
            f"Received: block={block!r}"
        )
    return table_block, units


def cifar_blocks(depth: int) -> list[str]:
    """The blocks of basic and bottleneck that a depth with the CIFAR stem may have.

    A depth of the paper has the paper's block alone, although others may fit its formula.
    """
    if depth in CIFAR_BLOCKS:
        return [CIFAR_BLOCKS[depth]]
    return [name for name in _fitting(depth) if name != "single"]


def _fitting(depth):
    """The blocks of which three equal stages, with the stem and the logits, have this depth."""
    return [
        name
        for name, (kernels, _) in BLOCKS.items()
        if depth > 2 and not (depth - 2) % (3 * len(kernels))
    ]


def _cifar_units(depth, block):
    """Three stages of n units, one weighted layer per convolution, the stem and the logits."""
    convolutions = {name: len(kernels) for name, (kernels, _) in BLOCKS.items()}
    fitting = _fitting(depth)
    if block is None:
        candidates = cifar_blocks(depth)
        block = candidates[0] if len(candidates) == 1 else None
    if block in fitting:
        n = (depth - 2) // (3 * convolutions[block])
        return block, (n, n, n)
    formulas = ", ".join(f"{3 * per_unit}n+2 ({name})" for name, per_unit in convolutions.items())
    rule = f"depth with stem='cifar' must be {formulas}, n from 1"
    if block is None and fitting:
        choices = " or ".join(f"block={name!r}" for name in fitting)
        raise ValueError(f"{rule}. depth={depth} needs {choices}.")
    nearest = _nearest_depths(depth, 3 * convolutions[block or "basic"])
    asked = f" with block={block!r}" if block else ""
    raise ValueError(
        f"{rule}; with stem='imagenet' one of {', '.join(map(str, IMAGENET_DEPTHS))}. "
        f"Received: depth={depth}{asked}. Nearest for {block or 'basic'} units: {nearest}."
    )


def _nearest_depths(depth, period):
    below = max(2, (depth - 2) // period * period + 2)
    return " and ".join(str(d) for d in (below, below + period) if d > 2)
