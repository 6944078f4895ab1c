"""The network of a run: built from its configuration, or restored from its folder."""

import re

from etils import epath

from keras_preact.data import DatasetInfo
from keras_preact.layers.batch_norm import bn_layers
from keras_preact.models import Network, ResNetV2
from keras_preact.support import files, own_code
from keras_preact.support.choices import one_of
from keras_preact.training import own_units
from keras_preact.training.checkpoints import checkpoint as checkpoints
from keras_preact.training.config import CHECKPOINTS, TrainConfig
from keras_preact.training.run_folder import RunFolder

_CHECKPOINT = re.compile(r"step-[0-9]+")


def build_model(config: TrainConfig, info: DatasetInfo, sync_bn: bool = False) -> Network:
    """Builds the network of a run, with new weights.

    Args:
        config: configuration of the run.
        info: gives image size and number of classes.
        sync_bn: whether BN uses the statistics of the global batch.

    Raises:
        ValueError: if code of the user's fails; the error names file and line.
    """
    with own_code.blamed():
        model = ResNetV2(
            config.depth,
            input_shape=info.image_shape,
            classes=info.classes,
            **config.architecture(),
            stochastic_depth_rate=config.stochastic_depth_rate,
        )
        if own_units.names_code(config):
            own_units.try_out(model)
    model.preprocessing = info.preprocessing
    for layer in bn_layers(model) if sync_bn else ():
        layer.synchronized = True
    return model


def load_run(run_dir: str, checkpoint: str = "newest") -> Network:
    """Returns the network of a run with the weights of a checkpoint: the averaged ones, if any.

    Reads no data. The network carries the run's preprocessing; see `models.Network`.

    Args:
        run_dir: folder of the run.
        checkpoint: "newest" or "best".

    Raises:
        ValueError: if there is no run, no such checkpoint, or the checkpoint is damaged.
    """
    one_of("checkpoint", checkpoint, CHECKPOINTS)
    folder = RunFolder(run_dir)
    folder.read()
    path = checkpoints.find(folder.checkpoints, checkpoint, run=folder.recorded_id())
    return restore_model(folder, path)


def load_folder(path: epath.PathLike, checkpoint: str = "newest") -> Network:
    """Returns the network of a run, or of one of its checkpoints.

    Args:
        path: folder of the run, or of the checkpoint, such as RUN/checkpoints/best/step-400.
        checkpoint: of a run: "newest" or "best".

    Raises:
        ValueError: if it is neither, or damaged.
    """
    path, folder = epath.Path(path), run_of(path)
    if not _CHECKPOINT.fullmatch(path.name):
        return load_run(path, checkpoint)
    if what := files.damage(path):
        raise ValueError(f"A checkpoint must be whole. Received: {path}, where {what}")
    return restore_model(folder, str(path))


def run_of(path: epath.PathLike) -> RunFolder:
    """Returns the folder of a run, or of the run of a checkpoint.

    Raises:
        ValueError: if the path is neither.
    """
    path = epath.Path(path)
    if not _CHECKPOINT.fullmatch(path.name):
        if not (folder := RunFolder(path)).holds_a_run():
            raise ValueError(
                "A folder with a network must be that of a run, with its config.json, or of a "
                f"checkpoint, such as RUN/checkpoints/step-400. Received: {path}"
            )
        return folder
    checkpoints_folder = path.parent.parent if path.parent.name == "best" else path.parent
    folder = RunFolder(checkpoints_folder.parent)
    if checkpoints_folder.name != folder.checkpoints.name or not folder.holds_a_run():
        raise ValueError(
            "A checkpoint must lie in the folder of its run, whose config.json tells what it "
            f"holds. Received: {path}"
        )
    return folder


def restore_model(folder: RunFolder, path: str) -> Network:
    """Builds the network of a run with a checkpoint's weights: the averaged ones, if any."""
    config, info = folder.read()
    folder.check_code()
    model = build_model(config, info)
    checkpoints.load_model(path, model, averages=config.ema_decay is not None)
    return model
