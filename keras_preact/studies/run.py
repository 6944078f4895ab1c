"""One analysis, from its flags to its page. The command line calls `run`."""

import dataclasses
import datetime
import shlex
from collections.abc import Sequence

import keras
import tensorflow as tf
from etils import epath

from keras_preact.studies import compare, initialisation, lesion, output, propagation
from keras_preact.studies.config import STUDIES, AnalysisConfig
from keras_preact.studies.networks import new, of_run
from keras_preact.support import memory, tf32
from keras_preact.support.choices import one_of
from keras_preact.support.console import say
from keras_preact.support.lock import locked
from keras_preact.support.machine import cores, processor
from keras_preact.training.memory import inference_bytes
from keras_preact.training.reporting import propagation_file
from keras_preact.training.run import load_data
from keras_preact.training.run_folder import RunFolder
from keras_preact.version import __version__


@tf32.off()
def run(
    config: AnalysisConfig, words: Sequence[str] = (), arguments: Sequence[str] = ()
) -> epath.Path:
    """Measures one study and writes its page.

    Args:
        config: of the analysis.
        words: the study, a key of `STUDIES`, by default propagation; after compare the
            folders of runs.
        arguments: of the command line, to be shown on the page.

    Returns:
        The folder of the page, which holds the page, its pictures and a CSV.

    Raises:
        ValueError: if there is no such study or run, or the folder to write to holds
            something that must not be replaced.
    """
    study, *rest = words or ("propagation",)
    _check(study, rest, config)
    folder = config.folder(study)
    output.check_folder(folder, config.overwrite)
    with locked(folder.parent / f".{folder.name}.unfinished", "output_dir"):
        # Whatever the precision of the training.
        keras.config.set_dtype_policy("float32")
        outcome = _measure(study, rest, config)
        outcome.facts.update(_facts(arguments))
        output.write(outcome, folder, f"{study}.csv")
    say("\n".join([*outcome.summary, f"  page: {folder / output.PAGE}"]))
    return folder


def _check(study, rest, config):
    one_of("study", study, STUDIES)
    if rest and study != "compare":
        raise ValueError(f"Only flags may follow {study}. Received: {' '.join(rest)}")
    if study == "compare":
        compare.check(rest)
    if study == "lesion" and not config.run_dir:
        raise ValueError(
            "lesion needs run_dir, the folder of a trained run. Received: run_dir=None"
        )
    if study in ("initialisation", "compare") and config.run_dir:
        what = "new networks" if study == "initialisation" else "the runs named after it"
        raise ValueError(f"{study} measures {what}. Received: run_dir={config.run_dir!r}")
    if not config.run_dir and study != "compare" and config.checkpoint != "newest":
        raise ValueError(
            f"checkpoint needs a run. Received: checkpoint={config.checkpoint!r}, and no run_dir"
        )
    if config.run_dir:
        folder = RunFolder(config.run_dir)
        folder.read()
        if study == "propagation":
            propagation_file.read(folder.propagation)


def _measure(study, rest, config):
    if study == "compare":
        return compare.study(rest, config)
    if config.run_dir:
        network = of_run(config.run_dir, config.checkpoint, config.data_dir)
        if study == "lesion":
            return lesion.study(network, config)
        return propagation.study([network], config)
    train_configs, loaded = config.train_configs(), {}
    for train_config in train_configs:
        if train_config.image_size not in loaded:
            loaded[train_config.image_size] = load_data(train_config)
    data = [loaded[train_config.image_size] for train_config in train_configs]
    for train_config, of_it in zip(train_configs, data, strict=True):
        _check_memory(train_config, of_it, config)
    if study == "initialisation":
        return initialisation.study(train_configs, data, config)
    return propagation.study(list(map(new, train_configs, data)), config)


def _check_memory(train_config, data, config):
    """Refuses a new network too large for this machine; GPUs report it themselves."""
    if not tf.config.list_physical_devices("GPU"):
        images = min(config.images or 1, data.info.train_count)
        memory.check(
            inference_bytes(train_config, data.info, images),
            f"A network of depth {train_config.depth} and its outputs",
            (field.name for field in dataclasses.fields(config)),
        )


def _facts(arguments):
    versions = f"keras_preact {__version__}, TensorFlow {tf.__version__}, Keras {keras.__version__}"
    facts = {
        "Command": shlex.join(["python", "-m", "keras_preact.analysis", *arguments]),
        "Computed on": f"{processor()}, {cores()} cores; {versions}",
        "At": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
    }
    return facts if arguments else dict(list(facts.items())[1:])
