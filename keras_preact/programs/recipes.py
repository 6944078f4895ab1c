"""Lists the recipes that train takes by name: data set, depth, and the error in the paper."""

import argparse

from keras_preact.support import recipes

_HEAD = ("recipe", "data set", "depth", "error in the paper")


def start(command: str) -> None:
    """Prints the list.

    Args:
        command: how the user called the program.
    """
    argparse.ArgumentParser(prog=command, description=__doc__).parse_args()
    rows = [(r.name, r.dataset, str(r.depth), r.error) for r in recipes.listed()]
    widths = [max(map(len, column)) for column in zip(_HEAD, *rows, strict=True)]
    for row in (_HEAD, *rows):
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        print("  ".join(cells).rstrip())
