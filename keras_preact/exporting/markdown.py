"""report.md: what each file of an export is worth, and how to use it, for people."""

from collections.abc import Mapping, Sequence
from typing import Any

from keras_preact.exporting.checks.parity import THROUGHPUT_BATCH
from keras_preact.exporting.report import Artifact
from keras_preact.support.text import markdown

_COLUMNS = (
    *("", "size", "max difference", "mean difference", "top-1", "agreement"),
    *("latency, 1 image", f"throughput, {THROUGHPUT_BATCH} images", "tolerance"),
)


def to_markdown(facts: Mapping[str, Any], artifacts: Sequence[Artifact]) -> bytes:
    """report.md, of the facts that are in report.json and the artifacts.

    Args:
        facts: with `source`, `model`, `data`, `evaluation`, `machine`, `created`,
            `version`, `rewriting`, `serving_bytes` and `commands`.
        artifacts: the Keras model's first.
    """
    data, evaluation = facts["data"], facts["evaluation"]
    name, source, data_name, machine = map(
        markdown, (facts["model"]["name"], facts["source"], data["name"], facts["machine"])
    )
    steps = [[step["step"], f"{step['max_difference']:.1e}"] for step in facts["rewriting"]]
    paragraphs = [
        f"# {name}, version {facts['version']}",
        f"From {source}, trained on {data_name} ({len(data['class_names'])} classes, "
        f"images {' x '.join(map(str, data['image_shape']))}). Exported at {facts['created']}.",
        "![Size, accuracy and speed of each file](report.png)",
        _table(_COLUMNS, map(_row, artifacts)),
        f"Differences of probabilities, top-1 accuracy and agreement (the same answer as Keras) on "
        f"{evaluation['images']:,} of {evaluation['available']:,} evaluation images. Medians of "
        f"time on {machine}, measured in turn in one process; other load moves them.",
        "## Rewritten for inference",
        _table(("step", "max difference"), steps),
        "Probabilities against the Keras model's on evaluation images. "
        + _of_bytes(facts["serving_bytes"]),
        "## Use",
        *(f"{title}:\n\n```\n{command}\n```" for title, command in facts["commands"].items()),
        "## SHA-256",
        "```\n" + "\n".join(line for each in artifacts for line in each.checksums()) + "\n```",
        "That of a folder in report.json is of these lines of its files.",
    ]
    return ("\n\n".join(paragraphs) + "\n").encode()


def _of_bytes(proof):
    if not proof["images"]:
        return "None of these is a file that `serving_bytes` takes: a JPEG or PNG."
    return (
        f"{proof['images']} of these, sent as files to `serving_bytes`: at most "
        f"{proof['max_difference']:.1e}."
    )


def _row(artifact):
    agreement, speed = artifact.agreement, artifact.speed
    if artifact.path is None:
        differences = ["", ""]
    else:
        differences = [f"{agreement.max_difference:.1e}", f"{agreement.mean_difference:.1e}"]
    return [
        artifact.name,
        "" if artifact.size_bytes is None else f"{artifact.size_bytes / 1e6:,.2f} MB",
        *differences,
        f"{agreement.accuracy:.2%}",
        f"{agreement.agreement:.2%}",
        f"{speed.latency_milliseconds:,.2f} ms",
        f"{speed.throughput_images_per_second:,.1f} images/s",
        str(artifact.tolerance or ""),
    ]


def _table(head, rows):
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
