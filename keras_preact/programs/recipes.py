"""Lists the recipes that train takes by name: data set, depth, and the error in the paper."""

import argparse

from keras_preact.support import recipes
from keras_preact.support.text import aligned

_HEAD = ("recipe", "data set", "depth", "error in the paper")


def start(command: str) -> None:
    """Prints the list.

    Args:
        command: how the user called the program.
    """
    argparse.ArgumentParser(prog=command, description=__doc__).parse_args()
    rows = [(r.name, r.dataset, r.depth or "any", r.error) for r in recipes.listed()]
    print(aligned(_HEAD, rows, indent=""))
