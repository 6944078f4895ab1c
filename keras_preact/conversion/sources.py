"""Makes a network of a run, a checkpoint or a file of weights."""

import os
from collections.abc import Callable, Sequence
from typing import Any

from etils import epath

from keras_preact.models import Network, foreign
from keras_preact.models.foreign.assign import described
from keras_preact.models.foreign.converting import IMAGENET, check_given
from keras_preact.models.foreign.own import NAME, in_float32
from keras_preact.support.paths import usable
from keras_preact.training.networks import load_folder


def convert(
    source: str | os.PathLike,
    *,
    format: str | None = None,
    depth: int | None = None,
    layout: str | None = None,
    input_shape: Sequence[int | None] | None = None,
    checkpoint: str = "newest",
    tell: Callable[[str], None] = print,
    **arguments: Any,
) -> Network:
    """Returns the network in a run, a checkpoint, or a file of weights that anyone made.

    The source tells what it holds. Arguments that say something else are refused, and so is any
    variable that is left over, missing, or of another shape.

    Args:
        source: folder of a run or of a checkpoint in it; path of a safetensors, npz, HDF5,
            `.keras` or PyTorch file; or "imagenet" for the weights of keras.applications, which
            are downloaded.
        format: "timm", "keras", "torchvision", "akamaster" or "keras_preact"; by default the
            names of the variables tell.
        depth: of the network; "imagenet", and `.weights.h5` files of our own networks, need it.
        layout: as for `ResNetV2`.
        input_shape: (height, width, channels) of the network; by default foreign nets take
            images of any size, and ours are as they were saved.
        checkpoint: of a run, "newest" or "best".
        tell: takes the report, a line.
        **arguments: others of `ResNetV2`, for files that do not record them: stem, block, unit,
            shortcut, projection, width_multiplier, stochastic_depth_rate.

    Returns:
        A float32 `Network` from preprocessed images to logits. Its `preprocessing` is None where
        the source does not tell, as `.weights.h5` files.

    Raises:
        ValueError: if the source is damaged, holds code, is of another network than the
            arguments say, or of none that the builders make.
        ModuleNotFoundError: if the package that reads the file is not installed.
        ConnectionError: if "imagenet" cannot be downloaded.
    """
    given = {"depth": depth, "layout": layout, **arguments}
    done = conversion(source, format, given, input_shape, checkpoint)
    tell(str(done.report))
    return done.network


def conversion(
    source: str | os.PathLike,
    format: str | None,
    given: dict[str, Any],
    input_shape: Sequence[int | None] | None = None,
    checkpoint: str = "newest",
) -> foreign.Conversion:
    """Does what `convert` says, and returns all of it; `given` are the builder's arguments."""
    if os.fspath(source) == IMAGENET and not epath.Path(IMAGENET).is_dir():
        return foreign.conversion(source, format, given, input_shape)
    path = usable(source, "source")
    if not path.is_dir():
        return foreign.conversion(path, format, given, input_shape)
    if format not in (None, NAME):
        raise ValueError(
            f"format must be {NAME!r} for a run or a checkpoint. Received: format={format!r}, "
            f"source={path}"
        )
    if input_shape is not None:
        raise ValueError(
            "input_shape must be None for a run or a checkpoint, which know their own. Received: "
            f"input_shape={tuple(input_shape)}"
        )
    with in_float32():
        network = load_folder(path, checkpoint)
    check_given(given, network.arguments, str(path))
    names = tuple(variable.path for variable in network.variables)
    report = foreign.Report(str(path), "a run of this package", described(network), names)
    return foreign.Conversion(network, report)
