"""absl flags made from a configuration's fields, in groups, with errors a user can read."""

import dataclasses
import os
import shutil
import sys
import types
import typing
from collections.abc import Callable, Sequence

from absl import flags, logging

FLAGS = flags.FLAGS
USAGE_ERROR = 2


def define(config_class: type, values: flags.FlagValues = FLAGS) -> None:
    """Defines a flag for each field of a dataclass made of `option`s."""
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
        else:
            define_number = {int: flags.DEFINE_integer, float: flags.DEFINE_float}
            define_number.get(kind, flags.DEFINE_string)(*arguments, help_text, **options)


def given(config_class: type, values: flags.FlagValues = FLAGS) -> dict:
    """The fields that the command line or a flagfile set, and to what."""
    names = [field.name for field in dataclasses.fields(config_class)]
    return {name: values[name].value for name in names if values[name].present}


def parser(
    description: str, config_class: type, values: flags.FlagValues = FLAGS
) -> Callable[[Sequence[str]], list[str]]:
    """A `flags_parser` for `absl.app.run`: --help shows the groups, errors exit with code 2."""

    def parse(argv):
        if {"--help", "-help", "-h", "--helpshort"} & set(argv[1:]):
            print(f"{description}\n{_help(config_class)}")
            sys.exit(0)
        try:
            rest = values(argv)
        except flags.Error as error:
            fail(f"{error}\nAll flags: python {argv[0]} --help")
        # Else checkpoints log how long they took, at every save.
        if "verbosity" not in values or not values["verbosity"].present:
            logging.set_verbosity(logging.WARNING)
        if len(rest) > 1:
            fail(f"Only flags are understood. Received: {' '.join(rest[1:])}")
        return rest

    return parse


def fail(message: str, code: int = USAGE_ERROR) -> typing.NoReturn:
    """Ends the program with an error in the user's words."""
    print(f"Error: {message}", file=sys.stderr)
    sys.exit(code)


def this_python() -> str:
    """How the user's shell calls the Python that runs this, for commands to copy."""
    if shutil.which("python") == sys.executable:
        return "python"
    relative = os.path.relpath(sys.executable)
    return sys.executable if relative.startswith("..") else relative


class _TupleParser(flags.ArgumentParser):
    """Numbers separated by commas."""

    def __init__(self, item: type):
        self.item = item
        self.syntactic_help = "numbers separated by commas"

    def parse(self, argument):
        if isinstance(argument, tuple):
            return argument
        try:
            return tuple(self.item(part) for part in argument.split(",") if part.strip())
        except ValueError:
            raise ValueError(f"must be {self.item.__name__} numbers separated by commas") from None

    def flag_type(self):
        return f"comma separated {self.item.__name__}"


def _kind(hint):
    """(type, type of the items of a tuple) of a hint such as int | None."""
    if isinstance(hint, types.UnionType):
        hint = next(part for part in typing.get_args(hint) if part is not type(None))
    if typing.get_origin(hint) is tuple:
        return tuple, typing.get_args(hint)[0]
    return hint, None


def _help(config_class):
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
            lines.append(f"      one of {', '.join(choices)}")
    lines += [
        "\nflagfiles:",
        "  --flagfile: a file with a flag a line, such as a recipe in configs/",
    ]
    return "\n".join(lines)
