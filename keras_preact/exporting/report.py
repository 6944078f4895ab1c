"""The report of an export: report.json, report.md and report.png."""

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from etils import epath

from keras_preact.exporting.checks.parity import THROUGHPUT_BATCH, Agreement, Speed
from keras_preact.exporting.checks.tolerances import Tolerance
from keras_preact.exporting.export_folder import REPORT, TFLITE, Layout
from keras_preact.exporting.left_out import LeftOut
from keras_preact.support.files import sha256
from keras_preact.support.plotting import BLUE, GREY, as_png, figure
from keras_preact.support.text import markdown, printable

KERAS = "keras"

_UNLABELLED = (
    "These images are parts of two photographs without labels: right is what the Keras model says "
    "of them. "
)
_COMPARED = (
    *("", "max difference", "mean difference", "top-1", "agreement"),
    "loss in points (90 % interval)",
)
_COLUMNS = (
    *("", "size", *_COMPARED[1:]),
    *("latency, 1 image", f"throughput, {THROUGHPUT_BATCH} images", "tolerance"),
)

# The table of distortions shows these units; report.json has all.
_WORST_UNITS = 10
_DISTORTIONS = ("stream_decibels", "residual_decibels")

_TFLITE_PYTHON = """\
import zipfile

import numpy as np
from ai_edge_litert.interpreter import Interpreter
from PIL import Image, ImageOps

path, ratio = "{path}", {ratio:.5g}
predict = Interpreter(path).get_signature_runner()
images = predict.get_input_details()["images"]
_, height, width, channels = images["shape"]
photo = ImageOps.exif_transpose(Image.open("serving/example.jpg")).convert("{mode}")
# As in evaluation: resize to cover `ratio` times the size, then crop the centre.
photo = ImageOps.fit(photo, (round(ratio * width), round(ratio * height)), Image.BILINEAR)
left, top = (photo.width - width) // 2, (photo.height - height) // 2
photo = photo.crop((left, top, left + width, top + height))
pixels = np.asarray(photo, images["dtype"]).reshape(1, height, width, channels)
[scores] = predict(images=pixels)["probabilities"]
print(zipfile.ZipFile(path).read("labels.txt").decode().splitlines()[scores.argmax()])
"""


@dataclasses.dataclass(frozen=True)
class Artifact:
    """An exported file, or a folder of files, and its measurements.

    Args:
        name: such as "tflite/int8".
        agreement: with the Keras model.
        speed: on this machine.
        path: in the export's folder; None for the Keras model itself.
        tolerance: the one that the file met; None for the Keras model itself.
        files: size in bytes and SHA-256 of each file, by path in the export's folder.
    """

    name: str
    agreement: Agreement
    speed: Speed
    path: str | None = None
    tolerance: Tolerance | None = None
    files: Mapping[str, tuple[int, str]] = dataclasses.field(default_factory=dict)

    @property
    def size_bytes(self) -> int | None:
        """The size of all its files; None for the Keras model itself."""
        return sum(size for size, _ in self.files.values()) if self.files else None

    @property
    def sha256(self) -> str | None:
        """The SHA-256 of its file; for a folder, that of `sha256sum`'s listing of its files."""
        if len(self.files) == 1:
            [(_, checksum)] = self.files.values()
            return checksum
        listing = "".join(f"{line}\n" for line in self.checksums())
        return hashlib.sha256(listing.encode()).hexdigest() if listing else None

    def checksums(self) -> list[str]:
        """Lines that `sha256sum --check` reads in the export's folder."""
        return [f"{checksum}  {path}" for path, (_, checksum) in sorted(self.files.items())]


def describe_files(root: epath.Path, path: epath.Path) -> dict[str, tuple[int, str]]:
    """Size in bytes and SHA-256 of a file, or of all files in a folder, by path below root."""
    if path.is_dir():
        return {
            name: description
            for part in path.iterdir()
            for name, description in describe_files(root, part).items()
        }
    return {str(path.relative_to(root)): (path.stat().length, sha256(path))}


def write(
    layout: Layout,
    facts: Mapping[str, Any],
    artifacts: Sequence[Artifact],
    left_out: Sequence[LeftOut] = (),
) -> None:
    """Writes the three files into the version's folder of reports, and copies on top.

    Args:
        layout: of the export.
        facts: see `to_markdown`.
        artifacts: the Keras model first.
        left_out: files that are not in the export.
    """
    layout.reports.mkdir(parents=True)
    title = f"{facts['model']['name']}, version {facts['version']}, on {facts['machine']}"
    for kind, contents in (
        ("json", to_json(facts, artifacts, left_out)),
        ("md", to_markdown(facts, artifacts, left_out)),
        ("png", to_png(artifacts, title)),
    ):
        for folder in (layout.reports, layout.root):
            (folder / f"{REPORT}.{kind}").write_bytes(contents)


def to_json(
    facts: Mapping[str, Any], artifacts: Sequence[Artifact], left_out: Sequence[LeftOut] = ()
) -> bytes:
    """report.json: the facts, then the artifacts, then the files that are not in the export."""
    entries = [
        {
            "name": artifact.name,
            "path": artifact.path,
            "size_bytes": artifact.size_bytes,
            "sha256": artifact.sha256,
            **_comparison(artifact),
            **dataclasses.asdict(artifact.speed),
            "files": {
                path: {"size_bytes": size, "sha256": checksum}
                for path, (size, checksum) in sorted(artifact.files.items())
            },
        }
        for artifact in artifacts
    ]
    missing = [
        {"name": each.name, "reason": each.reason, "command": each.command, **_comparison(each)}
        for each in left_out
    ]
    report = {**facts, "artifacts": entries, "left_out": missing}
    return (json.dumps(report, indent=2) + "\n").encode()


def _comparison(file):
    """The figures and the tolerance of an `Artifact` or a `LeftOut`."""
    figures, agreement, tolerance = {"tolerance": None}, file.agreement, file.tolerance
    if agreement:
        # JSON has no infinity.
        figures |= {
            name: None if value in (math.inf, -math.inf) else value
            for name, value in dataclasses.asdict(agreement).items()
        }
    if tolerance:
        figures["tolerance"] = tolerance.to_json()
        figures["loss_points"] = agreement.loss_points
        figures["loss_interval_points"] = agreement.loss_interval_points
    return figures


def to_markdown(
    facts: Mapping[str, Any], artifacts: Sequence[Artifact], left_out: Sequence[LeftOut] = ()
) -> bytes:
    """report.md, for people.

    Args:
        facts: with `source`, `model`, `data`, `evaluation`, `machine`, `created`,
            `version`, `rewriting`, `serving_bytes`, `tried_server`, `is_labelled`, `commands` and
            `int8`, an `Int8Report` as a dictionary, where there is one.
        artifacts: the Keras model first.
        left_out: files that are not in the export.
    """
    data, evaluation = facts["data"], facts["evaluation"]
    name, source, data_name, machine = map(
        markdown, (facts["model"]["name"], facts["source"], data["name"], facts["machine"])
    )
    lite = [artifact.path for artifact in artifacts if artifact.name.startswith(TFLITE)]
    paragraphs = [
        f"# {name}, version {facts['version']}",
        f"From {source}, trained on {data_name} ({len(data['class_names'])} classes, "
        f"images {' x '.join(map(str, data['image_shape']))}). Exported at {facts['created']}.",
        "![Size, accuracy and speed of each file](report.png)",
        _table(_COLUMNS, map(_row, artifacts)),
        "Difference of probabilities from the Keras model's, top-1 accuracy, agreement (share of "
        "images with the Keras model's answer), and loss of accuracy with its confidence interval, "
        f"on {evaluation['images']:,} of {evaluation['available']:,} evaluation images. "
        f"{_UNLABELLED if not facts['is_labelled'] else ''}Times are "
        f"medians on {machine}; the files take turns in one process, and other load changes the "
        "times.",
        *_of_left_out(left_out),
        *_of_int8(facts.get("int8")),
        *_of_rewriting(facts),
        "## Use",
        *(f"{title}:\n\n```\n{command}\n```" for title, command in facts["commands"].items()),
        *_of_servers(facts),
        *([_tflite_python(lite[0], data)] if lite else []),
        "## SHA-256",
        "```\n" + "\n".join(line for each in artifacts for line in each.checksums()) + "\n```",
        "The SHA-256 of a folder, in report.json, is that of the lines of its files.",
    ]
    return ("\n\n".join(paragraphs) + "\n").encode()


def _of_int8(found):
    """The section on the residual additions of the int8 file."""
    if not found:
        return []
    attempts = [
        [
            f"{attempt['ranges']}{' (written)' if number == found['written'] else ''}",
            f"{attempt['float_additions']} of {len(found['before'])}",
            f"{attempt['agreement']:.1%}",
            f"{attempt['size_bytes'] / 1e6:,.2f} MB",
        ]
        for number, attempt in enumerate(found["attempts"])
    ]
    pairs = list(zip(found["before"], found["after"], strict=True))
    worst = sorted(pairs, key=lambda pair: pair[0]["rounding_decibels"])[:_WORST_UNITS]
    units = [
        [
            before["unit"],
            "float32" if after["rounding_decibels"] is None else "int8",
            *(f"{before[name]:.1f}" for name in ("rounding_decibels", *_DISTORTIONS)),
            *(f"{after[name]:.1f}" for name in _DISTORTIONS),
        ]
        for before, after in worst
    ]
    return [
        "## Residual additions in int8",
        _table(("ranges", "additions in float32", "agreement", "size"), attempts),
        f"Agreement is the share of {found['images']:,} training images, which set no ranges, with "
        "the answer of float32. Ranges are those of TensorFlow's calibration; or the observed "
        "ones, from the least to the largest value; or narrowed ones, which cut off values far "
        "from all others so that the steps become finer. "
        "`--int8_additions` chooses the precision of the additions.",
        _table(
            (
                *("unit", "addition", "rounding alone"),
                *("stream, all in int8", "residual, all in int8", "stream", "residual"),
            ),
            units,
        ),
        f"The {len(units)} of {len(pairs)} residual units whose additions lose most when rounded "
        "to int8, with signal-to-noise ratios in decibels beside float32: at 20 the error is a "
        "tenth of the signal, at 0 as large. Rounding alone compares what a unit adds with the "
        "rounding of its sum; stream and residual carry the errors of all units before. All units "
        "are in report.json.",
    ]


def _of_rewriting(facts):
    if not facts["rewriting"]:
        return []
    steps = [[step["step"], f"{step['max_difference']:.1e}"] for step in facts["rewriting"]]
    return [
        "## Rewritten for inference",
        _table(("step", "max difference"), steps),
        "The largest difference from the Keras model's probabilities, on a sample of evaluation "
        f"images. {_of_serving_bytes(facts['serving_bytes'])}",
    ]


def _of_servers(facts):
    if not facts["serving_bytes"]:
        return []
    return [
        f"Such exports have been served by {facts['tried_server']}; the docker image has not been "
        "tried."
    ]


def _of_left_out(left_out):
    if not left_out:
        return []
    compared = [each for each in left_out if each.agreement]
    table = _table(_COMPARED, [[each.name, *_figures(each.agreement)] for each in compared])
    paragraphs = ["## Left out", *([table] if compared else [])]
    for each in left_out:
        paragraphs += [
            f"`{each.name}`: {markdown(each.reason)}",
            f"To export it all the same:\n\n```\n{each.command}\n```"
            if each.command
            else "No flag changes that.",
        ]
    return paragraphs


def _of_serving_bytes(compared):
    if not compared:
        return ""
    if not compared["images"]:
        return "The sample holds no file that `serving_bytes` takes: a JPEG or PNG."
    return (
        f"`serving_bytes`, sent {compared['images']} of them as files, differs by at most "
        f"{compared['max_difference']:.1e}."
    )


def _tflite_python(path, data):
    mode = "L" if data["image_shape"][-1] == 1 else "RGB"
    code = _TFLITE_PYTHON.format(path=path, ratio=data["margin"], mode=mode)
    return f"Use a TFLite file from Python, here in the export's folder:\n\n```python\n{code}```"


def _row(artifact):
    speed, figures = artifact.speed, _figures(artifact.agreement)
    if artifact.path is None:
        # The Keras model differs in nothing from itself.
        figures = ["", "", *figures[2:4], ""]
    return [
        artifact.name,
        "" if artifact.size_bytes is None else f"{artifact.size_bytes / 1e6:,.2f} MB",
        *figures,
        f"{speed.latency_milliseconds:,.2f} ms",
        f"{speed.throughput_images_per_second:,.1f} images/s",
        str(artifact.tolerance or ""),
    ]


def _figures(agreement):
    low, high = agreement.loss_interval_points
    return [
        f"{agreement.max_difference:.1e}",
        f"{agreement.mean_difference:.1e}",
        f"{agreement.accuracy:.2%}",
        f"{agreement.agreement:.2%}",
        f"{agreement.loss_points:.2f} ({low:.2f} to {high:.2f})",
    ]


def _table(head, rows):
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


@as_png
def to_png(artifacts: Sequence[Artifact], title: str) -> bytes:
    """report.png: bars of size, accuracy, latency and throughput.

    Args:
        artifacts: the Keras model first; its bars are grey.
        title: a line above the picture.
    """
    panels = (
        ("size (MB)", "{:,.2f}", lambda a: None if a.path is None else a.size_bytes / 1e6),
        ("top-1 accuracy (%)", "{:.2f}", lambda a: 100 * a.agreement.accuracy),
        ("latency, 1 image (ms)", "{:,.2f}", lambda a: a.speed.latency_milliseconds),
        (
            f"throughput, {THROUGHPUT_BATCH} images (images/s)",
            "{:,.0f}",
            lambda a: a.speed.throughput_images_per_second,
        ),
    )
    picture = figure(figsize=(13, 1.2 + 0.35 * len(artifacts)))
    picture.suptitle(printable(title))
    names = [artifact.name for artifact in artifacts]
    colors = [GREY if a.path is None else BLUE for a in artifacts]
    for axes, (label, form, value) in zip(
        picture.subplots(1, len(panels), sharey=True), panels, strict=True
    ):
        values = [value(artifact) for artifact in artifacts]
        bars = axes.barh(names, [v or 0 for v in values], color=colors)
        texts = ["" if v is None else form.format(v) for v in values]
        axes.bar_label(bars, texts, padding=3, fontsize="small")
        axes.margins(x=0.3)
        axes.set_xlabel(label)
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(left=False)
    axes.invert_yaxis()
    return picture
