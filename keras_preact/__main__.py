"""The door: `keras-preact VERB`, or `python -m keras_preact VERB`.

Without a verb it answers at once, without TensorFlow.
"""

import pkgutil
import sys
from collections.abc import Sequence
from typing import NamedTuple

from keras_preact.support import backend, commands, console, startup
from keras_preact.support.choices import one_of


class Verb(NamedTuple):
    """A program: the function that runs it, and its line in the list.

    The function takes `command`, how the user called the program; the arguments are in sys.argv.
    """

    function: str
    text: str
    needs_tensorflow: bool = True


VERBS = {
    "data": Verb("keras_preact.programs.data:start", "look at a data set before training"),
    "train": Verb("keras_preact.programs.train:start", "train, resume or evaluate a network"),
    "evaluate": Verb(
        "keras_preact.programs.evaluate:start", "measure it on labelled images, with a page"
    ),
    "export": Verb("keras_preact.programs.export:start", "export it for servers and phones"),
    "convert": Verb("keras_preact.conversion.run:start", "start from weights made elsewhere"),
    "predict": Verb("keras_preact.programs.predict:start", "predict the classes of image files"),
    "analysis": Verb(
        "keras_preact.analysis.__main__:start", "measure signal and gradient in each residual unit"
    ),
    "experiments": Verb(
        "keras_preact.programs.experiments:start", "re-run a table of the paper, or your own"
    ),
    "benchmark": Verb(
        "keras_preact.benchmark.__main__:start", "time it beside stock Keras and PyTorch"
    ),
    "doctor": Verb(
        "keras_preact.doctor.run:start", "check that all of it is right and fast here", False
    ),
    "recipes": Verb(
        "keras_preact.programs.recipes:start", "list the recipes that train --recipe takes", False
    ),
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the program that the first argument names.

    Args:
        arguments: of the command line; default: sys.argv[1:].
    """
    console.survive()
    name, *rest = (sys.argv[1:] if arguments is None else arguments) or ["--help"]
    if name in ("--help", "-h", "help"):
        print(_listing())
        return
    try:
        verb = VERBS[one_of("verb", name, VERBS)]
    except ValueError as error:
        print(f"Error: {error}\nAll verbs: {commands.door()}", file=sys.stderr)
        sys.exit(2)
    if verb.needs_tensorflow:
        startup.begin()
        backend.check()
    command = f"{commands.door()} {name}"
    sys.argv = [command, *rest]
    pkgutil.resolve_name(verb.function)(command=command)


def _listing():
    width = max(map(len, VERBS))
    return "\n".join(
        [
            "Residual networks with pre-activation units.\n",
            f"{commands.door()} VERB [FLAGS]\n",
            *(f"  {name.ljust(width)}  {verb.text}" for name, verb in VERBS.items()),
            f"\nThe flags of a verb: {commands.door()} VERB --help",
        ]
    )


if __name__ == "__main__":
    main()
