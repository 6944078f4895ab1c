"""One export from its configuration. export.py calls `run`."""

import dataclasses
import datetime
import shlex

import keras
import tensorflow as tf
from etils import epath

from keras_preact.exporting import build, export_folder, plot, report, source
from keras_preact.exporting.checks.verification import Proof
from keras_preact.exporting.config import ExportConfig
from keras_preact.exporting.export_folder import ExportFolder
from keras_preact.exporting.graph import network, rewriting
from keras_preact.exporting.markdown import to_markdown
from keras_preact.exporting.serving import server_files
from keras_preact.support.commands import module, this_python
from keras_preact.support.console import say
from keras_preact.support.machine import cores, processor
from keras_preact.training.distribution.distributed_input import naming_unreadable
from keras_preact.version import __version__


def run(config: ExportConfig) -> epath.Path:
    """Exports a trained model, proves each file, and says where all lies and how to use it.

    Returns:
        The folder of the SavedModel's version.

    Raises:
        ValueError: if there is nothing to export, no data to compare on, or the folder to
            export to cannot be written to, is used by another process, or holds the
            version already or something else; or if an image can no longer be read.
        ParityError: if a file is beyond its tolerance. Nothing is left of the export.
    """
    source.check(config)
    folder = ExportFolder(_output_dir(config), config.version)
    with folder.staged() as stage:
        exported = source.read(config)
        folder.check_same_net(exported.data.info)
        say(f"Exporting {exported.description} to {folder.path}")
        name = folder.name_to_serve(config.model_name, exported.model.name)
        commands = _commands(name, folder)
        data = exported.data
        with naming_unreadable(data, "eval", lambda: range(data.info.eval_count)):
            artifacts = _fill(stage, folder, exported, config, name, commands)
    say(_summary(folder, artifacts, commands))
    return folder.saved_model


def _output_dir(config):
    default = f"{config.run_dir}/export" if config.run_dir else config.model.removesuffix(".keras")
    return config.output_dir or default


def _fill(stage, folder, exported, config, name, commands):
    """Writes and proves all files; returns them with what has been measured of them."""
    version = stage / export_folder.SAVED_MODEL / str(folder.version)
    keras_predictor = build.keras_predictor(exported)
    proof = Proof(exported, keras_predictor, config)
    steps = rewriting.rewrite(network.trace(exported.model, exported.data.info.image_shape))
    of_steps = proof.of_steps(steps)
    graph = steps[-1].graph
    saved_model, session = build.write_saved_model(graph, exported, config, version)
    of_bytes = proof.of_bytes(session)
    lite_folder = stage / export_folder.TFLITE / str(folder.version)
    lite = build.write_tflite(graph, exported, config, lite_folder)
    build.write_serving(
        exported, name, proof.sample_images[0], stage / export_folder.SERVING, version
    )
    say("Comparing with the Keras model")
    artifacts = proof.of_files([saved_model, *lite], stage)
    facts = _facts(exported, folder, config)
    facts |= {"model_name": name, "commands": commands}
    facts |= {"rewriting": of_steps, "serving_bytes": of_bytes}
    _write_report(stage, folder.version, facts, artifacts)
    return artifacts


def _facts(exported, folder, config):
    info, model = exported.data.info, exported.model
    return {
        "created": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "source": exported.description,
        "version": folder.version,
        "flags": dataclasses.asdict(config),
        "model": {"name": model.name, "parameters": model.count_params()},
        "data": info.to_json(),
        "evaluation": {
            "images": min(config.eval_images or info.eval_count, info.eval_count),
            "available": info.eval_count,
        },
        "machine": f"{processor()}, {cores()} cores",
        "versions": {
            "keras_preact": __version__,
            "tensorflow": tf.__version__,
            "keras": keras.__version__,
        },
    }


def _commands(model_name, folder):
    """What to do with the export, by title."""
    saved_model, served = shlex.quote(str(folder.saved_model)), folder.path / export_folder.SERVING
    request, client, example = (
        shlex.quote(str(served / name))
        for name in ("request_bytes.json", "client.py", "example.jpg")
    )
    return {
        "Classify an image": f"{module('keras_preact.exporting.classify')} "
        f"--model={saved_model} {example}",
        "Serve it": server_files.docker_command(model_name, folder.path),
        "Ask the server": f"{this_python()} {client} {example}",
        "The same with curl": f"curl -d @{request} "
        f"http://localhost:8501/v1/models/{model_name}:predict",
    }


def _write_report(stage, version, facts, artifacts):
    folder = stage / export_folder.REPORTS / str(version)
    folder.mkdir(parents=True)
    title = f"{facts['model']['name']}, version {version}, on {facts['machine']}"
    for name, contents in (
        ("json", report.to_json(facts, artifacts)),
        ("md", to_markdown(facts, artifacts)),
        ("png", plot.png(artifacts, title)),
    ):
        for place in (folder, stage):
            (place / f"{export_folder.REPORT}.{name}").write_bytes(contents)


def _summary(folder, artifacts, commands):
    of_keras, *files = artifacts
    lines = [
        f"  {each.path}: {each.size_bytes / 1e6:,.2f} MB, {each.agreement.accuracy:.2%} right, "
        f"{each.speed.latency_milliseconds:,.2f} ms an image"
        for each in files
    ]
    return "\n".join(
        [
            f"Exported to {folder.path}. On {of_keras.agreement.images:,} evaluation images, of "
            f"which the Keras model has {of_keras.agreement.accuracy:.2%} right:",
            *lines,
            f"  report: {folder.path / 'report.md'}",
            *(f"{title}:\n  {command}" for title, command in commands.items()),
        ]
    )
