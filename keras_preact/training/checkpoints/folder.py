"""The checkpoints in a folder: names, order, damage and shapes of variables."""

import re
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import tensorflow as tf
from etils import epath

from keras_preact.support import files

# Prefix of the files in a checkpoint's folder.
PREFIX = "variables"
# Folders that a killed process left: half filled by `files.sealed`, half deleted by `files.remove`.
_UNFINISHED, _DELETED = (rf"\.step-[0-9]+\.{end}" for end in ("tmp", "deleted"))
_SUFFIX = "/.ATTRIBUTES/VARIABLE_VALUE"
_NAMED_DIFFERENCES = 5


def step_of(path: str) -> int:
    """Returns the step in a checkpoint's name."""
    return int(path.rpartition("-")[2])


def listed(folder: epath.Path) -> list[str]:
    """Lists the paths of the checkpoints in a folder, newest first."""
    return sorted(map(str, _matching(folder, "step-[0-9]+")), key=step_of, reverse=True)


def unfinished_steps(folder: epath.Path) -> set[int]:
    """Returns the steps whose checkpoints a killed process left unfinished."""
    return {step_of(path.name.removesuffix(".tmp")) for path in _matching(folder, _UNFINISHED)}


def _matching(folder, pattern):
    # glob would take brackets in the names of parent folders for wildcards.
    paths = folder.iterdir() if folder.exists() else ()
    return [path for path in paths if re.fullmatch(pattern, path.name)]


def keep(folder: epath.Path, paths: Sequence[str], run: str | None = None) -> None:
    """Deletes a run's checkpoints in a folder except `paths`, and all unfinished ones.

    Args:
        folder: of the checkpoints.
        paths: of the checkpoints to keep.
        run: id of the run; checkpoints of other runs, or without a manifest, are kept.
    """
    for path in _matching(folder, f"{_UNFINISHED}|{_DELETED}"):
        files.remove(path)
    for path in set(listed(folder)) - set(paths):
        if (epath.Path(path) / files.MANIFEST).exists() and files.run_of(path) in (None, run):
            files.remove(path)


def name_as_latest(path: epath.Path) -> None:
    """Names a checkpoint for users of `tf.train.latest_checkpoint`."""
    text = f'model_checkpoint_path: "{path.name}/{PREFIX}"\n'
    files.write_whole(path.parent / "checkpoint", text.encode())


def newest_undamaged(
    folder: epath.Path, tell: Callable[[str], None], tidy: bool, run: str | None = None
) -> str | None:
    """Returns the path of the newest checkpoint that matches its manifest; None without any.

    Args:
        folder: of the checkpoints.
        tell: takes a line for the user on each damaged checkpoint.
        tidy: moves damaged checkpoints to the subfolder `damaged`, unless all are damaged.
        run: id of the run that it must be of, if it has an id; None for any.

    Raises:
        ValueError: if all are damaged, or the newest is of another run.
    """
    damaged = []
    for path in listed(folder):
        what = files.damage(path) or _without_index(path)
        if what is None:
            _check_own(path, run)
            # Only now: with none left in the folder, the next start would begin a new run.
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
    """Describes a missing index, which a manifest may leave out; None if it is there."""
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


def names_in(path: str, group: str) -> set[str]:
    """Returns the names of the variables of a group in a checkpoint."""
    names = tf.train.load_checkpoint(f"{path}/{PREFIX}").get_variable_to_shape_map()
    prefix = f"{group}/"
    return {
        name.removeprefix(prefix).removesuffix(_SUFFIX) for name in names if name.startswith(prefix)
    }


def check_fits(path: str, groups: Mapping[str, Mapping[str, tf.Variable | np.ndarray]]) -> None:
    """Raises ValueError if a checkpoint holds other variables in these groups."""
    stored = {
        key.removesuffix(_SUFFIX).replace(".S", "/"): shape
        for key, shape in tf.train.load_checkpoint(f"{path}/{PREFIX}")
        .get_variable_to_shape_map()
        .items()
        if key.partition("/")[0] in groups
    }
    wanted = {
        f"{group}/{name}": list(variable.shape)
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
