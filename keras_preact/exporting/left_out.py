"""TFLite files that an export leaves out, and the commands that export them all the same."""

import dataclasses
import shlex
from collections.abc import Mapping, Sequence

from etils import epath

from keras_preact.exporting.checks.parity import Agreement
from keras_preact.exporting.checks.tolerances import Tolerance, tolerance_of
from keras_preact.exporting.config import ExportConfig
from keras_preact.exporting.export_folder import TFLITE
from keras_preact.support.commands import program
from keras_preact.support.errors import RunError


@dataclasses.dataclass(frozen=True)
class LeftOut:
    """A file that is not in the export.

    Args:
        name: such as "tflite/int8".
        reason: why it is not.
        command: exports it all the same, as part of a further version; None if nothing does.
        agreement: with the Keras model; None for a file that could not be made.
        tolerance: the one that the file exceeds; None for a file that could not be made.
    """

    name: str
    reason: str
    command: str | None = None
    agreement: Agreement | None = None
    tolerance: Tolerance | None = None


class PartlyExported(RunError):  # noqa: N818
    """The export is complete but for some TFLite files.

    Args:
        path: what `run` would have returned.
        left_out: the files that are missing.
    """

    exit_code = 3

    def __init__(self, path: epath.Path, left_out: Sequence[LeftOut]):
        self.path, self.left_out = path, tuple(left_out)
        lines = [f"Exported without {', '.join(each.name for each in left_out)}."]
        for each in left_out:
            lines += [f"Left out: {each.name}: {each.reason}"]
            lines += (
                [f"To export it all the same:\n  {each.command}"]
                if each.command
                else ["No flag changes that."]
            )
        super().__init__("\n".join(lines))


def left_out(
    config: ExportConfig, impossible: Mapping[str, str], exceeding: Mapping[str, Agreement]
) -> list[LeftOut]:
    """Explains why TFLite files are not in an export.

    Args:
        config: of the export.
        impossible: reasons why files could not be made, by kind.
        exceeding: agreements of the files that exceed their tolerances, by kind.
    """
    explained = []
    for kind in config.tflite_kinds:
        name = f"{TFLITE}/{kind}"
        if kind in impossible:
            explained.append(LeftOut(name, impossible[kind]))
        elif kind in exceeding:
            agreement, tolerance = exceeding[kind], tolerance_of(kind, config)
            reason, values = tolerance.excess(agreement), tolerance.sufficient(agreement)
            command = values and _command(_accepting(config, values, impossible, exceeding))
            explained.append(LeftOut(name, reason, command, agreement, tolerance))
    return explained


def _accepting(config, values, impossible, exceeding):
    """The configuration with other values of tolerances, and the kinds that they accept."""
    # A version is never replaced, so the number that the user chose is taken now.
    changed = dataclasses.replace(config, version=None, **values)
    kinds = (
        kind
        for kind in config.tflite_kinds
        if kind not in impossible
        and (kind not in exceeding or not tolerance_of(kind, changed).excess(exceeding[kind]))
    )
    return dataclasses.replace(changed, tflite=tuple(kinds))


def _command(config):
    """The shell command of an export: the flags that are not at their defaults."""
    flags = [
        _flag(field.name, value)
        for field in dataclasses.fields(config)
        if (value := getattr(config, field.name)) != field.default
    ]
    return " ".join([program("export"), *map(shlex.quote, flags)])


def _flag(name, value):
    if isinstance(value, bool):
        return f"--{'' if value else 'no'}{name}"
    if isinstance(value, float):
        return f"--{name}={value:.15g}"
    return f"--{name}={','.join(map(str, value)) if isinstance(value, tuple) else value}"
