"""One export from its configuration. export.py calls `run`."""

import dataclasses
import datetime
import shlex

import keras
import tensorflow as tf
from etils import epath

from keras_preact.exporting import export_folder, report, source
from keras_preact.exporting.checks.verification import (
    Verification,
    WrittenFile,
    saved_model_kind,
)
from keras_preact.exporting.config import ExportConfig
from keras_preact.exporting.export_folder import SAVED_MODEL, ExportFolder, Layout
from keras_preact.exporting.formats import int8, saved_model, tflite, weights
from keras_preact.exporting.graph import network, rewriting
from keras_preact.exporting.left_out import PartlyExported, left_out
from keras_preact.exporting.serving import server_files, warmup
from keras_preact.models.foreign import how_to_load
from keras_preact.support.commands import program, this_python
from keras_preact.support.console import say
from keras_preact.support.machine import cores, processor
from keras_preact.training.distribution.distributed_input import naming_unreadable
from keras_preact.version import __version__


def run(config: ExportConfig) -> epath.Path:
    """Exports a trained model, checks each file against it and prints how to use the files.

    A TFLite file that cannot be made, or is beyond its tolerance, is left out.

    Returns:
        The folder of the SavedModel's version; without a SavedModel, that of the version's report.

    Raises:
        ValueError: if there is nothing to export or no data to compare on; if the output folder
            cannot be written to, is used by another process, or holds the version or something
            else; or if an image can no longer be read.
        ParityError: if the SavedModel is beyond its tolerance. Nothing is left of the export.
        PartlyExported: if TFLite files were left out; all else has been exported.
    """
    source.check(config)
    folder = ExportFolder(_output_dir(config), config.version)
    with folder.staged() as stage:
        exported = source.read(config)
        folder.check_same_net(exported.data.info)
        say(f"Exporting {exported.description} to {folder.path}")
        name = folder.name_to_serve(config.model_name, exported.model.name)
        facts = _facts(exported, folder, config, name)
        layout, data = Layout(stage, folder.version), exported.data
        with naming_unreadable(data, "eval", lambda: range(data.info.eval_count)):
            verification = Verification(exported, exported.predictor(), config)
            impossible = _write(exported, config, layout, name, verification, facts)
            say("Comparing with the Keras model")
            files = _load(config, layout, exported.preprocessing, impossible)
            artifacts, exceeding = verification.compare_files(files, stage)
            if SAVED_MODEL in config.formats:
                session = saved_model.SessionModel(layout.saved_model)
                facts["serving_bytes"] = verification.compare_serving_bytes(session)
        missing = left_out(config, impossible, _remove(files, exceeding, layout))
        report.write(layout, facts, artifacts, missing)
    say(_summary(folder, exported, artifacts, facts["commands"]))
    written = folder.layout
    path = written.saved_model if SAVED_MODEL in config.formats else written.reports
    if missing:
        raise PartlyExported(path, missing)
    return path


def _output_dir(config):
    default = f"{config.run_dir}/export" if config.run_dir else config.model.removesuffix(".keras")
    return config.output_dir or default


def _write(exported, config, layout, name, verification, facts) -> dict[str, str]:
    """Writes all files; returns reasons why TFLite files could not be made, by kind."""
    facts["rewriting"], facts["serving_bytes"], facts["int8"], impossible = [], None, None, {}
    if config.weights_kinds:
        weights.write(exported.model, layout.weights, config.weights_kinds)
    if SAVED_MODEL in config.formats or config.tflite_kinds:
        image_shape = exported.data.info.image_shape
        steps = rewriting.rewrite(network.trace(exported.model, image_shape))
        if config.tflite_kinds:
            lite = _write_tflite(steps[-1].graph, exported, config, layout)
            impossible = lite.impossible
            facts["int8"] = dataclasses.asdict(lite.int8) if lite.int8 else None
        if SAVED_MODEL in config.formats:
            steps += saved_model.rewrite(steps[-1].graph, config.saved_model_precision)
            _write_for_servers(steps[-1].graph, exported, config, layout, name)
        facts["rewriting"] = verification.compare_steps(steps)
    return impossible


def _write_for_servers(graph, exported, config, layout, name):
    """Writes the SavedModel and the folder `serving`."""
    options = {"freeze": config.freeze, "max_image_pixels": config.max_image_pixels}
    saved_model.write(graph, exported.preprocessing, layout.saved_model, **options)
    image, file = exported.example()
    warmup.write(layout.saved_model, name, image, file)
    server_files.write(layout.serving, name, image, file, config.serving_image)


def _write_tflite(graph, exported, config, layout) -> tflite.Written:
    images = None
    if "int8" in config.tflite_kinds:
        count = config.calibration_images
        held_out = exported.held_out_images(count, int8.HELD_OUT_IMAGES)
        images = int8.Images(exported.calibration_images(count), held_out)
    name = f"{exported.model.name} trained on {exported.data.info.name}"
    kinds, additions = config.tflite_kinds, config.int8_additions
    preprocessing = exported.preprocessing
    return tflite.write(graph, preprocessing, layout.tflite, name, kinds, images, additions)


def _load(config, layout, preprocessing, impossible) -> list[WrittenFile]:
    files = []
    if SAVED_MODEL in config.formats:
        predict = saved_model.SessionModel(layout.saved_model).predict
        kind = saved_model_kind(config)
        files.append(WrittenFile(SAVED_MODEL, kind, layout.saved_model, predict))
    for kind in config.weights_kinds:
        path = layout.weights / f"{weights.NAME}.{kind}"
        predict = weights.read(path, preprocessing)
        files.append(WrittenFile(f"{export_folder.WEIGHTS}/{kind}", kind, path, predict))
    for kind in config.tflite_kinds:
        if kind in impossible:
            continue
        path = layout.tflite / f"{kind}.tflite"
        predict = tflite.LiteModel(path, cores()).predict
        files.append(WrittenFile(f"{export_folder.TFLITE}/{kind}", kind, path, predict))
    return files


def _remove(files, exceeding, layout):
    """Removes TFLite files that exceed their tolerances; returns their agreements by kind."""
    removed = [file for file in files if file.name in exceeding]
    for file in removed:
        file.path.unlink()
    if layout.tflite.exists() and not any(layout.tflite.iterdir()):
        layout.tflite.parent.rmtree()
    return {file.kind: exceeding[file.name] for file in removed}


def _facts(exported, folder, config, model_name):
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
        "model_name": model_name,
        "tried_server": server_files.TRIED,
        "is_labelled": exported.is_labelled,
        "commands": _commands(model_name, folder, config, model),
    }


def _commands(model_name, folder, config, model):
    """Shell commands that use the export, by title."""
    commands = {}
    choices = [(model.arguments or {}).get(name) for name in ("unit", "shortcut")]
    is_named = all(isinstance(choice, str) for choice in choices)
    for kind in config.weights_kinds:
        path = str(folder.layout.weights / f"{weights.NAME}.{kind}")
        # The folder of a run has the code of the user's own units; a file has not.
        path = shlex.quote(path if is_named or not config.run_dir else config.run_dir)
        commands[f"Fine-tune {kind} on your own images"] = (
            f"{program('train')} --recipe=finetune_folder --init_from={path} --data_dir=FOLDER"
        )
    if "safetensors" in config.weights_kinds:
        commands["Load safetensors in Python"] = how_to_load(model)
    if SAVED_MODEL in config.formats:
        commands |= _serving_commands(model_name, folder, config.serving_image)
    return commands


def _serving_commands(model_name, folder, serving_image):
    saved_model = shlex.quote(str(folder.layout.saved_model))
    served = folder.path / export_folder.SERVING
    request, client, example = (
        shlex.quote(str(served / name))
        for name in ("request_bytes.json", "client.py", "example.jpg")
    )
    return {
        "Classify an image": f"{program('predict')} --model={saved_model} {example}",
        "Serve it": server_files.docker_command(model_name, folder.path, serving_image),
        "Ask the server": f"{this_python()} {client} {example}",
        "The same with curl": f"curl -d @{request} "
        f"http://localhost:8501/v1/models/{model_name}:predict",
    }


def _summary(folder, exported, artifacts, commands):
    keras_model, *files = artifacts
    unlabelled = (
        ""
        if exported.is_labelled
        else "\nThe images are parts of two photographs, and right is what the Keras model says of "
        "them. --dataset and --data_dir compare on images with labels."
    )
    lines = [
        f"  {each.path}: {each.size_bytes / 1e6:,.2f} MB, {each.agreement.accuracy:.2%} right, "
        f"{each.speed.latency_milliseconds:,.2f} ms an image"
        for each in files
    ]
    return "\n".join(
        [
            f"Exported to {folder.path}. On {keras_model.agreement.images:,} evaluation images "
            f"the Keras model has {keras_model.agreement.accuracy:.2%} right:{unlabelled}",
            *lines,
            f"  report: {folder.path / 'report.md'}",
            *(f"{title}:\n  {command}" for title, command in commands.items()),
        ]
    )
