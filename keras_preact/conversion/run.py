"""Makes a network of weights that timm, Keras, torchvision or a run has trained.

Recognizes the format and the network, refuses every mismatch, and reports what it did.
"""

import argparse
import dataclasses
import shlex
from collections.abc import Sequence

from keras_preact.conversion import output, sources
from keras_preact.conversion.verification import AbsentError, verify
from keras_preact.layers import Preprocessing
from keras_preact.models.foreign import FORMATS, how_to_load
from keras_preact.models.foreign.own import NAME
from keras_preact.support import program
from keras_preact.support.commands import door
from keras_preact.support.text import printable

AUTO = "auto"
_BUILDER = ("depth", "layout", "stem", "block", "unit", "shortcut", "projection")


@dataclasses.dataclass(frozen=True)
class Options:
    """The command line: the fields are its words and flags."""

    source: str
    output: str
    format: str = AUTO
    checkpoint: str = "newest"
    verify: bool = False
    overwrite: bool = False
    arguments: dict = dataclasses.field(default_factory=dict)


def start(command: str, arguments: Sequence[str] | None = None) -> None:
    """Runs the program.

    Args:
        command: how the user called it.
        arguments: of the command line; default: sys.argv[1:].
    """
    options = _parse(command, arguments)
    with program.ending(Options, "nothing has been written"):
        try:
            _run(options)
        except ModuleNotFoundError as error:
            # A package that reads this kind of file; the message names it.
            raise ValueError(str(error)) from error


def _parse(command, arguments):
    parser = argparse.ArgumentParser(
        prog=command,
        description=__doc__,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "source",
        help="a run, a checkpoint in it, a file of weights (safetensors, npz, HDF5, .keras, .pth), "
        "or imagenet, which downloads the weights of keras.applications",
    )
    parser.add_argument(
        "--from", dest="format", default=AUTO, choices=(AUTO, *FORMATS, NAME), help="its format"
    )
    endings = ", ".join(output.ENDINGS)
    parser.add_argument("--output", required=True, help=f"file to write, ending in {endings}")
    parser.add_argument(
        "--verify", action="store_true", help="compare with the original in its own framework"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace the output if it exists")
    parser.add_argument(
        "--checkpoint", default="newest", choices=("newest", "best"), help="of a run"
    )
    group = parser.add_argument_group("the network, where the source does not record it")
    group.add_argument("--depth", type=int, help="as in train; imagenet and .weights.h5 need it")
    group.add_argument("--layout", help="as in train")
    group.add_argument("--stem", help="as in train")
    group.add_argument("--block", help="as in train")
    group.add_argument("--unit", help="as in train")
    group.add_argument("--shortcut", help="as in train")
    group.add_argument("--projection", help="as in train")
    group.add_argument("--width_multiplier", type=float, help="as in train")
    found = vars(parser.parse_args(arguments))
    builder = {name: found.pop(name) for name in (*_BUILDER, "width_multiplier")}
    return Options(**found, arguments=builder)


def _run(options):
    output.check(options.output, options.overwrite)
    format = None if options.format == AUTO else options.format
    done = sources.conversion(options.source, format, options.arguments, None, options.checkpoint)
    print(printable(str(done.report)), flush=True)
    print(f"Preprocessing: {described(done.network.preprocessing)}", flush=True)
    if options.verify:
        try:
            print(verify(done), flush=True)
        except AbsentError as absent:
            print(f"Not verified: {absent}.", flush=True)
    output.write(done.network, options.output)
    print(_next(options.output, done.network))


def described(preprocessing: Preprocessing | None) -> str:
    """Describes a preprocessing in a line."""
    if preprocessing is None:
        return "unknown; give it where the network is used"
    height, width, channels = preprocessing.image_shape
    mean, std = (
        ", ".join(f"{value:.6g}" for value in values)
        for values in (preprocessing.mean, preprocessing.std)
    )
    classes = len(preprocessing.class_names)
    return (
        f"{height} x {width} x {channels}, {preprocessing.interpolation}, resized to "
        f"{preprocessing.resize_ratio:.4g} of that and cropped, mean {mean}, std {std} of 0 to "
        f"255, {f'{classes:,} class names' if classes else 'no class names'}"
    )


def _next(path, network):
    quoted = shlex.quote(path)
    if path.endswith(".weights.h5"):
        return f"Written to {path}: variables alone, for ResNetV2(..., weights={path!r})."
    lines = [f"Written to {path}."]
    if path.endswith(".safetensors"):
        lines.append(f"Load it: {how_to_load(network).replace('PATH', repr(path))}")
    else:
        lines.append(
            f"Predict:   {door()} predict --model={quoted} --source=FOLDER --output=answers.csv"
        )
    lines.append(
        f"Fine-tune: {door()} train --init_from={quoted} --dataset=folder --data_dir=FOLDER "
        "--run_dir=RUN"
    )
    return "\n".join(lines)
