"""The network of a run: built from its configuration, or restored from its folder."""

from keras_preact.data import DatasetInfo
from keras_preact.layers.batch_norm import bn_layers
from keras_preact.models import Network, ResNetV2
from keras_preact.support.choices import one_of
from keras_preact.training.checkpoints import checkpoint as checkpoints
from keras_preact.training.config import CHECKPOINTS, TrainConfig
from keras_preact.training.run_folder import RunFolder


def build_model(config: TrainConfig, info: DatasetInfo, sync_bn: bool = False) -> Network:
    """Builds the network of a run, with new weights.

    Args:
        config: configuration of the run.
        info: gives image size and number of classes.
        sync_bn: whether BN uses the statistics of the global batch.
    """
    model = ResNetV2(
        config.depth,
        input_shape=info.image_shape,
        classes=info.classes,
        **config.architecture(),
        stochastic_depth_rate=config.stochastic_depth_rate,
    )
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


def restore_model(folder: RunFolder, path: str) -> Network:
    """Builds the network of a run with a checkpoint's weights: the averaged ones, if any."""
    config, info = folder.read()
    model = build_model(config, info)
    checkpoints.load_model(path, model, averages=config.ema_decay is not None)
    return model
