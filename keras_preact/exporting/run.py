"""One export from its configuration. export.py calls `run`."""

import itertools
import shlex

import keras
import numpy as np
import tensorflow as tf
from etils import epath

from keras_preact.exporting import saved_model
from keras_preact.exporting.config import ExportConfig
from keras_preact.training import checkpoint
from keras_preact.training.checkpoint_folder import step_of
from keras_preact.training.files import write_whole
from keras_preact.training.flags import this_python
from keras_preact.training.lock import locked
from keras_preact.training.run import load_data, restore_model
from keras_preact.training.run_folder import RunFolder, check_same_data

COMPARED_IMAGES = 64


def run(config: ExportConfig) -> epath.Path:
    """Exports a trained run, and says where all lies and how to classify an image.

    Returns:
        The folder of the SavedModel's version.

    Raises:
        ValueError: if there is no run, no checkpoint, no data to compare on, or the folder
            to export to cannot be written to or is used by another process.
        ParityError: if the export does not compute what the Keras model computes.
    """
    folder = RunFolder(config.run_dir)
    train_config, info = folder.read()
    checkpoint.find(folder.checkpoints, config.checkpoint, tell=lambda line: None)
    if config.data_dir:
        train_config = train_config.updated(data_dir=config.data_dir)
    output = epath.Path(config.output_dir or folder.path / "export").expanduser()
    with locked(output, "output_dir"):
        data = load_data(train_config)
        check_same_data(data.info, info)
        images = _eval_images(data)
        # Whatever the run's precision was.
        keras.config.set_dtype_policy("float32")
        # Anew: a run that goes on may have deleted it meanwhile.
        path = checkpoint.find(folder.checkpoints, config.checkpoint)
        model = restore_model(folder, path)
        version, difference = saved_model.export(model, info, images, output / "saved_model")
        example = output / "example.png"
        write_whole(example, tf.io.encode_png(images[0]).numpy())
    arguments = shlex.join([f"--model={version}", str(example)])
    print(
        f"Exported step {step_of(path):,}. On {len(images)} evaluation images its "
        f"probabilities differ from the Keras model's by at most {difference:.1e}.\n"
        f"  run:            {folder}\n"
        f"  curves:         {folder.curves}\n"
        f"  exported model: {version}\n"
        "Classify an image, for example this one of the evaluation set:\n"
        f"  {this_python()} -m keras_preact.exporting.classify {arguments}"
    )
    return version


def _eval_images(data):
    batches = data.eval(min(COMPARED_IMAGES, data.info.eval_count))
    return np.concatenate([images.numpy() for images, *_ in itertools.islice(batches, 1)])
