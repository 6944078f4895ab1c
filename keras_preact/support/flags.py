"""Makes absl flags from the fields of a configuration, in groups, with readable errors."""

import dataclasses
import errno
import os
import sys
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

from absl import flags, logging

from keras_preact.support import recipes as recipe_files
from keras_preact.support.text import printable

FLAGS = flags.FLAGS
# Letters of a flagfile, which may be a device without an end.
MOST_LETTERS = 2**20
# Letters of an error, which quotes what was received.
_MOST_SHOWN = 500
# Digits of a number; Python itself refuses to read some thousands.
_MOST_DIGITS = 40
_DEBUG_HELP = "show the full traceback of errors, and TensorFlow's own messages"
_RECIPE_HELP = "a recipe by its name, such as cifar10_resnet164, in place of --flagfile"
# Names that other programs give to flags, and ours.
OTHER_NAMES = {
    **dict.fromkeys(("batch", "batch_size", "bs", "train_batch_size"), "global_batch_size"),
    **dict.fromkeys(("amp", "bf16", "dtype", "fp16", "mixed_precision"), "precision"),
    **dict.fromkeys(("checkpoint_dir", "logdir", "model_dir", "save_dir", "workdir"), "run_dir"),
    **dict.fromkeys(("data", "data_path", "dataset_dir", "tfds_dir"), "data_dir"),
    **dict.fromkeys(("epochs", "max_epochs", "num_epochs"), "train_epochs"),
    **dict.fromkeys(("gpu", "gpus", "num_gpus"), "devices"),
    **dict.fromkeys(("layers", "num_layers", "resnet_depth", "resnet_size"), "depth"),
    **dict.fromkeys(("lr", "base_lr", "initial_learning_rate"), "learning_rate"),
    **dict.fromkeys(("max_steps", "num_steps", "steps"), "train_steps"),
    **dict.fromkeys(("wd", "l2"), "weight_decay"),
    **{"config": "recipe", "image_res": "image_size", "warmup": "warmup_steps"},
    **{"out_dir": "output_dir", "output": "output_dir", "outdir": "output_dir"},
}


def define(config_class: type, values: flags.FlagValues = FLAGS) -> None:
    """Defines a flag for each field of a dataclass made of `option`s, and --debug."""
    flags.DEFINE_bool("debug", False, _DEBUG_HELP, module_name="program", flag_values=values)
    hints = typing.get_type_hints(config_class)
    for field in dataclasses.fields(config_class):
        kind, item = _kind(hints[field.name])
        help_text = field.metadata["help"]
        options = {"module_name": field.metadata["group"], "flag_values": values}
        arguments = (field.name, field.default)
        if kind is bool:
            flags.DEFINE_bool(*arguments, help_text, **options)
        elif kind is tuple:
            parser = _TupleParser(item)
            serializer = flags.CsvListSerializer(",")
            flags.DEFINE(parser, *arguments, help_text, serializer=serializer, **options)
        elif kind is str and field.default != "":
            serializer = flags.ArgumentSerializer()
            flags.DEFINE(_TextParser(), *arguments, help_text, serializer=serializer, **options)
        elif kind in _NUMBERS:
            serializer = flags.ArgumentSerializer()
            flags.DEFINE(_NUMBERS[kind](), *arguments, help_text, serializer=serializer, **options)
        else:
            flags.DEFINE_string(*arguments, help_text, **options)


def given(config_class: type, values: flags.FlagValues = FLAGS) -> dict:
    """Returns the fields that the command line or a flagfile set, with their values."""
    names = [field.name for field in dataclasses.fields(config_class)]
    return {name: values[name].value for name in names if values[name].present}


def debugging(values: flags.FlagValues = FLAGS) -> bool:
    """Whether --debug is among the flags parsed so far."""
    return "debug" in values and values["debug"].value


def parser(
    description: str,
    config_class: type,
    values: flags.FlagValues = FLAGS,
    words: bool = False,
    recipes: bool = False,
) -> Callable[[Sequence[str]], list[str]]:
    """A `flags_parser` for `absl.app.run`: --help shows the groups.

    It takes how the user called the program and the arguments, and returns the first and the
    words beside flags. It raises ValueError where absl does not take a flag, naming the line of
    a flagfile. A flagfile is looked for in the current folder, then beside the file that names
    it: absl looks in the current folder alone, reads devices without an end, and skips files
    that include themselves.

    Args:
        description: of the program, for --help.
        config_class: as in `define`.
        values: as in `define`.
        words: whether words beside flags are allowed.
        recipes: whether --recipe=NAME stands for a flagfile of ours.
    """
    if recipes:
        flags.DEFINE_string("recipe", None, _RECIPE_HELP, module_name="program", flag_values=values)

    def parse(argv):
        command, *texts = argv
        if {"--help", "-help", "-h", "--helpshort"} & set(texts):
            print(f"{description}\n{_help(config_class, recipes)}")
            sys.exit(0)
        arguments = list(_expand(map(_Argument, texts), recipes))
        try:
            rest = _parse(values, arguments, words)
        except ValueError as error:
            blame = _shorten(_blame(values, arguments, words) or str(error))
            raise ValueError(f"{blame}\nAll flags: {command} --help") from None
        # Otherwise TensorFlow logs the duration of every save.
        if "verbosity" not in values or not values["verbosity"].present:
            logging.set_verbosity(logging.WARNING)
        return [command, *rest]

    return parse


class _Argument(NamedTuple):
    """An argument, and where in a flagfile it stands: "FILE, line 7: "."""

    text: str
    place: str = ""


def _expand(
    arguments: Iterable[_Argument], recipes: bool, files: tuple[str, ...] = ()
) -> Iterator[_Argument]:
    """The arguments, with the lines of a file in place of each --flagfile and --recipe."""
    arguments = iter(arguments)
    for argument in arguments:
        option, equals, name = argument.text.partition("=")
        is_recipe = recipes and option in ("--recipe", "-recipe")
        if not is_recipe and option not in ("--flagfile", "-flagfile"):
            yield argument
            continue
        if not equals:
            if (following := next(arguments, None)) is None:
                yield argument  # absl says that a value is missing
                return
            name = following.text
        if not (name := name.strip()):  # as absl does: an empty name is no file
            continue
        try:
            path = recipe_files.find(name) if is_recipe else _find(name, files)
            lines = _read(path, files)
        except ValueError as error:
            raise ValueError(f"{argument.place}{option}={name}: {error}") from error
        yield from _expand(lines, recipes, (*files, path))


def _find(name, files):
    path = os.path.expanduser(name)
    beside = os.path.join(os.path.dirname(files[-1]), path) if files else path
    return beside if not os.path.exists(path) and os.path.exists(beside) else path


def _read(path, files):
    if os.path.realpath(path) in map(os.path.realpath, files):
        chain = " -> ".join((*files, path))
        raise ValueError(f"A flagfile must not include itself. Received: {chain}")
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read(MOST_LETTERS + 1)
        if len(text) > MOST_LETTERS:
            raise OSError(errno.EFBIG, f"more than {MOST_LETTERS:,} letters")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise ValueError(
            f"A flagfile must be a text file that can be read. Received: {path} ({reason})"
        ) from None
    return [
        _Argument(line, f"{path}, line {number}: ")
        for number, line in enumerate(map(str.strip, text.split("\n")), start=1)
        if line and not line.startswith(("#", "//"))
    ]


def _shorten(refusal):
    text = printable(refusal)
    half = _MOST_SHOWN // 2
    return text if len(text) <= _MOST_SHOWN else f"{text[:half]} ... {text[-half:]}"


def _parse(values, arguments, words):
    """The words beside flags; raises ValueError for what absl refuses, and where none may be."""
    try:
        _, *rest = values(["", *(argument.text for argument in arguments)])
    except flags.UnrecognizedFlagError as error:
        meant = OTHER_NAMES.get(error.flagname)
        if meant in values:
            error = flags.UnrecognizedFlagError(error.flagname, error.flagvalue, [meant])
        raise ValueError(str(error)) from None
    except flags.Error as error:
        raise ValueError(str(error)) from None
    if rest and not words:
        raise ValueError(f"Only flags are understood. Received: {' '.join(rest)}")
    return rest


def _blame(values, arguments, words):
    """The error that names the line of a flagfile; None where the command line is at fault."""

    def refusal(count):
        try:
            _parse(values, arguments[:count], words)
        except ValueError as error:
            return str(error)

    for count, (text, place) in enumerate(arguments, start=1):
        # A name may stand alone in its line, and its value in the next.
        if (reason := refusal(count)) and refusal(count + 1):
            if not text.startswith("-"):
                reason = "A line must be a flag, as in --depth=20, or a comment after #."
            return place and f"{place}{text}: {reason.removeprefix(f'flag {text}: ')}"
    return None


class _TextParser(flags.ArgumentParser):
    """Text that is not empty, as that of an unset shell variable would be."""

    syntactic_help = "a text"

    def parse(self, argument):
        if argument == "":
            raise ValueError("must not be empty. Leave the flag out for its default")
        return argument

    def flag_type(self):
        return "string"


class _WholeNumberParser(flags.IntegerParser):
    def convert(self, argument):
        try:
            number = super().convert(argument)
        except ValueError:
            number = None
        if isinstance(argument, str) and len(argument) > _MOST_DIGITS:
            raise ValueError(f"must be a whole number of at most {_MOST_DIGITS} digits")
        if number is None:
            raise ValueError("must be a whole number")
        return number


class _FractionParser(flags.FloatParser):
    def convert(self, argument):
        try:
            return super().convert(argument)
        except (ValueError, OverflowError):
            raise ValueError("must be a number") from None


_NUMBERS = {int: _WholeNumberParser, float: _FractionParser}


class _TupleParser(flags.ArgumentParser):
    """Numbers separated by commas."""

    def __init__(self, item: type):
        self.item = item
        self.syntactic_help = "numbers separated by commas"

    def parse(self, argument):
        if isinstance(argument, tuple):
            return argument
        convert = _NUMBERS[self.item]().convert if self.item in _NUMBERS else self.item
        try:
            return tuple(convert(part.strip()) for part in argument.split(",") if part.strip())
        except ValueError as error:
            kind = self.item.__name__
            raise ValueError(f"must be {kind} numbers separated by commas; each {error}") from None

    def flag_type(self):
        return f"comma separated {self.item.__name__}"


def _kind(hint):
    """(type, type of the items of a tuple) of a hint such as int | None."""
    if isinstance(hint, types.UnionType):
        hint = next(part for part in typing.get_args(hint) if part is not type(None))
    if typing.get_origin(hint) is tuple:
        return tuple, typing.get_args(hint)[0]
    return hint, None


def _help(config_class, recipes):
    lines, group = [], None
    for field in dataclasses.fields(config_class):
        if field.metadata["group"] != group:
            group = field.metadata["group"]
            lines.append(f"\n{group}:")
        value = field.default
        value = ",".join(map(str, value)) if isinstance(value, tuple) else value
        default = "" if value is None else f" (default {value})"
        choices = field.metadata["choices"]
        lines.append(f"  --{field.name}: {field.metadata['help']}{default}")
        if choices:
            own = field.metadata.get("own")
            lines.append(f"      one of {', '.join(choices)}" + (f", or {own}" if own else ""))
    lines += [
        "\nevery program:",
        *([f"  --recipe: {_RECIPE_HELP}"] if recipes else []),
        "  --flagfile: a file with a flag a line, such as a recipe in configs/",
        f"  --debug: {_DEBUG_HELP}",
    ]
    return "\n".join(lines)
