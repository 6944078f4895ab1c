"""The checkpoints in a folder: their names and order, damage, and what they hold."""

import re
from collections.abc import Callable, Mapping, Sequence

import tensorflow as tf
from etils import epath

from keras_preact.support import files

# Of the files of a checkpoint, in its folder.
PREFIX = "variables"
# What `files.sealed` was filling, and `files.remove` was deleting.
_UNFINISHED, _DELETED = (rf"\.step-[0-9]+\.{end}" for end in ("tmp", "deleted"))
_SUFFIX = "/.ATTRIBUTES/VARIABLE_VALUE"
_NAMED_DIFFERENCES = 5


def step_of(path: str) -> int:
    """The step that a checkpoint's name ends in."""
    return int(path.rpartition("-")[2])


def listed(folder: epath.Path) -> list[str]:
    """The paths of the checkpoints in a folder, newest first."""
    return sorted(map(str, _matching(folder, "step-[0-9]+")), key=step_of, reverse=True)


def unfinished_steps(folder: epath.Path) -> set[int]:
    """The steps after which a process was killed while it saved."""
    return {step_of(path.name.removesuffix(".tmp")) for path in _matching(folder, _UNFINISHED)}


def _matching(folder, pattern):
    # Not by glob, which would take brackets in the names of folders above for wildcards.
    paths = folder.iterdir() if folder.exists() else ()
    return [path for path in paths if re.fullmatch(pattern, path.name)]


def keep(folder: epath.Path, paths: Sequence[str], run: str | None = None) -> None:
    """Deletes a run's checkpoints in a folder but these, and what a killed process left of others.

    Args:
        folder: of the checkpoints.
        paths: of those to keep.
        run: id of the run; another run's checkpoints stay, as does what has no manifest.
    """
    for path in _matching(folder, f"{_UNFINISHED}|{_DELETED}"):
        files.remove(path)
    for path in set(listed(folder)) - set(paths):
        if (epath.Path(path) / files.MANIFEST).exists() and files.run_of(path) in (None, run):
            files.remove(path)


def name_as_latest(path: epath.Path) -> None:
    """Names a checkpoint for `tf.train.latest_checkpoint`, on which nothing here depends."""
    text = f'model_checkpoint_path: "{path.name}/{PREFIX}"\n'
    files.write_whole(path.parent / "checkpoint", text.encode())


def newest_undamaged(
    folder: epath.Path, tell: Callable[[str], None], tidy: bool, run: str | None = None
) -> str | None:
    """The path of the newest checkpoint that is as its manifest says; None where there is none.

    Args:
        folder: of the checkpoints.
        tell: takes a line for the user on each damaged one.
        tidy: whether to move damaged ones to the subfolder `damaged`, where one is left to
            go on from.
        run: id of the run they must be of; None takes any, as it does those without an id.

    Raises:
        ValueError: if all are damaged, or the newest is another run's.
    """
    damaged = []
    for path in listed(folder):
        what = files.damage(path) or _without_index(path)
        if what is None:
            _check_own(path, run)
            # Not before: without any left, the next start would be a new one.
            for each in damaged if tidy else ():
                _move_to_damaged(epath.Path(each))
            return path
        tell(f"{path} is damaged: {what}. Looking for the one before it.")
        damaged.append(path)
    if damaged:
        raise ValueError(
            f"All checkpoints in {folder} are damaged: {', '.join(damaged)}. The run may have "
            "others to evaluate or export, --checkpoint=newest or best. To start anew, give "
            "--overwrite or another --run_dir."
        )
    return None


def _without_index(path):
    """Names the index where it is missing; a manifest may leave it out. None where it is there."""
    index = f"{PREFIX}.index"
    return None if (epath.Path(path) / index).exists() else f"it has no {index}"


def _check_own(path, run):
    owner = files.run_of(path)
    if run and owner and owner != run:
        raise ValueError(
            f"Every checkpoint in a run's folder must be its own. Received: {path}, saved by run "
            f"{owner!r:.40}; config.json beside it is of run {run!r}. Move it out of the folder."
        )


def _move_to_damaged(path):
    target = path.parent / "damaged" / path.name
    target.parent.mkdir(exist_ok=True)
    files.remove(target)
    path.rename(target)


def check_fits(path: str, groups: Mapping[str, Mapping[str, tf.Variable]]) -> None:
    """Raises ValueError where a checkpoint holds other variables in these groups."""
    stored = {
        key.removesuffix(_SUFFIX).replace(".S", "/"): shape
        for key, shape in tf.train.load_checkpoint(f"{path}/{PREFIX}")
        .get_variable_to_shape_map()
        .items()
        if key.partition("/")[0] in groups
    }
    wanted = {
        f"{group}/{name}": variable.shape.as_list()
        for group, variables in groups.items()
        for name, variable in variables.items()
    }
    differences = [
        f"  {name}: {stored.get(name, 'absent')} in the checkpoint, "
        f"{wanted.get(name, 'absent')} in this net"
        for name in sorted({*stored, *wanted})
        if stored.get(name) != wanted.get(name)
    ]
    if differences:
        more = len(differences) - _NAMED_DIFFERENCES
        raise ValueError(
            f"{path} is of another architecture; these variables differ in shape:\n"
            + "\n".join(differences[:_NAMED_DIFFERENCES])
            + (f"\n  and {more:,} more" if more > 0 else "")
        )
