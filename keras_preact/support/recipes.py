"""The recipes of configs/, found by name from any folder.

A recipe is a flagfile whose header has a line "# Error in the paper: ...".
"""

import dataclasses
import pathlib

from keras_preact.support.choices import one_of

_PACKAGE = pathlib.Path(__file__).resolve().parents[1]
_ERROR = "# Error in the paper: "


@dataclasses.dataclass(frozen=True)
class Recipe:
    """A recipe: its network, its data and the error that it should reach.

    Args:
        name: of its file, without ".flags".
        dataset: the name of its data set.
        depth: weighted layers; None where the network to begin with decides.
        error: the error rate in the paper, in words; "none" where it has none.
    """

    name: str
    dataset: str
    depth: int | None
    error: str


def folder() -> pathlib.Path:
    """The folder of the recipes: in an installed package, or beside the package in a clone."""
    installed = _PACKAGE / "configs"
    return installed if installed.is_dir() else _PACKAGE.parent / "configs"


def find(name: str) -> str:
    """The path of a recipe, or of a file that recipes share.

    Raises:
        ValueError: if there is none of that name; the error lists the recipes.
    """
    paths = {path.stem: path for path in folder().glob("*.flags")}
    if name not in paths:
        one_of("recipe", name, [recipe.name for recipe in listed()])
    return str(paths[name])


def listed() -> list[Recipe]:
    """All recipes, by data set, depth and name."""
    paths = folder().glob("*.flags")
    recipes = [recipe for recipe in map(_read, paths) if recipe is not None]
    return sorted(recipes, key=lambda recipe: (recipe.dataset, recipe.depth or 0, recipe.name))


def _read(path):
    """The recipe in a file; None where the file is shared by recipes."""
    for line in path.read_text().splitlines():
        if line.startswith(_ERROR):
            given = _flags(path)
            error = line.removeprefix(_ERROR)
            depth = int(given["depth"]) if "depth" in given else None
            return Recipe(path.stem, given["dataset"], depth, error)
    return None


def _flags(path):
    """The flags in a file and in those that it includes, as text by name."""
    found = {}
    for line in path.read_text().splitlines():
        if line.startswith("--"):
            name, _, value = line[2:].partition("=")
            found |= _flags(folder() / f"{value}.flags") if name == "recipe" else {name: value}
    return found
