"""Writes docs/flags.md from the configurations of the programs.

python docs/write_flags.py
"""

import dataclasses
import pathlib
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from keras_preact.benchmark.config import BenchmarkConfig  # noqa: E402
from keras_preact.evaluation import EvaluateConfig  # noqa: E402
from keras_preact.experiments.config import ExperimentsConfig  # noqa: E402
from keras_preact.exporting import ExportConfig  # noqa: E402
from keras_preact.inspection import InspectionConfig  # noqa: E402
from keras_preact.prediction import PredictConfig  # noqa: E402
from keras_preact.studies.config import AnalysisConfig  # noqa: E402
from keras_preact.training import TrainConfig  # noqa: E402

PROGRAMS = {
    "data": InspectionConfig,
    "train": TrainConfig,
    "evaluate": EvaluateConfig,
    "export": ExportConfig,
    "predict": PredictConfig,
    "analysis": AnalysisConfig,
    "experiments": ExperimentsConfig,
    "benchmark": BenchmarkConfig,
}
INTRODUCTION = """# Flags

Written by `python docs/write_flags.py` from the configurations that the programs check. A flag
given twice takes its last value. A switch is turned on by `--NAME` and off by `--noNAME`. Lists
are separated by commas.

Each of these programs also takes `--flagfile=FILE`, a file with a flag a line, `--debug` for the
full traceback of an error and TensorFlow's own messages, and `--help`. `train` takes
`--recipe=NAME` for a file of flags in `configs/`; flags after it win. `convert` is described in
[Weights made elsewhere](weights.md), and by its `--help`.
"""


def page() -> str:
    """Returns the page's text: a table for each program and each group of its flags."""
    parts = [INTRODUCTION]
    for program, config in PROGRAMS.items():
        parts.append(f"## keras-preact {program}\n")
        groups: dict[str, list[dataclasses.Field]] = {}
        for field in dataclasses.fields(config):
            groups.setdefault(field.metadata["group"], []).append(field)
        for group, fields in groups.items():
            head = [f"| {group} | default | |", "|---|---|---|"]
            parts.append("\n".join([*head, *map(_row, fields)]) + "\n")
    return "\n".join(parts)


def _row(field):
    text = field.metadata["help"]
    if field.metadata["choices"]:
        own = field.metadata.get("own")
        names = ", ".join(f"`{choice}`" for choice in field.metadata["choices"])
        text += f" ({names}{f', or {own}' if own else ''})"
    escaped = text.replace("|", "\\|")
    return f"| `--{field.name}` | {_default(field.default)} | {escaped} |"


def _default(value):
    if value in (None, ""):
        return ""
    if isinstance(value, bool):
        return "on" if value else "off"
    return f"`{','.join(map(str, value)) if isinstance(value, tuple) else value}`"


if __name__ == "__main__":
    (ROOT / "docs" / "flags.md").write_text(page())
