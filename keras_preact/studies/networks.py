"""The networks of an analysis and their images."""

import dataclasses
from collections.abc import Sequence

import keras
import numpy as np

from keras_preact.analysis.backward_pass import check_images
from keras_preact.data import Dataset
from keras_preact.models import architectures
from keras_preact.training import user_code
from keras_preact.training.checkpoints import checkpoint
from keras_preact.training.checkpoints.folder import step_of
from keras_preact.training.config import TrainConfig
from keras_preact.training.run import build_model, restore_data, restore_model
from keras_preact.training.run_folder import RunFolder


@dataclasses.dataclass(frozen=True)
class Network:
    """A network and its data.

    Args:
        label: of the network, for titles and legends.
        config: of the run that trained it; of a new network, of a run that could.
        model: float32, from normalized images to logits.
        data: of the run.
        folder: of the run; None of a new network.
    """

    label: str
    config: TrainConfig
    model: keras.Model
    data: Dataset
    folder: RunFolder | None = None

    def training_images(
        self, count: int | None = None, seed: int = 0
    ) -> tuple[np.ndarray, np.ndarray]:
        """Training images, not augmented.

        Args:
            count: of images; by default 64, or 16 where they have more than 64 x 64 pixels.
            seed: chooses the images.

        Returns:
            float32 images (batch, height, width, channels) as the model takes them, and
            their labels, int32 (batch,).

        Raises:
            ValueError: if these images are too few and too small; see
                `backward_pass.check_images`.
        """
        info = self.data.info
        count = min(count or (64 if max(info.image_shape[:2]) <= 64 else 16), info.train_count)
        architecture = architectures.resolve(self.config.depth, self.config.stem, self.config.block)
        check_images(architecture, info.image_shape, count, "images")
        images, labels, *_ = next(iter(self.data.train(count, seed=seed, augmentation="none")))
        return self.normalize(images).numpy(), labels.numpy()

    def describe_images(self, count: int) -> str:
        """The number of training images measured on, their data set, size and treatment."""
        shape = " x ".join(map(str, self.data.info.image_shape))
        return (
            f"{count} training images of {self.data.info.name} ({shape}), normalized as in "
            "training, with the batch statistics of BN"
        )

    def normalize(self, images):
        """Normalizes images in 0 to 255 for the model."""
        return self.data.info.normalize(images)


def new(config: TrainConfig, data: Dataset) -> Network:
    """A network with new weights, drawn from the seed of the configuration."""
    keras.utils.set_random_seed(config.seed)
    return Network(describe(config), config, build_model(config, data.info), data)


def of_run(run_dir: str, which: str = "newest", data_dir: str | None = None) -> Network:
    """The network of a run, with the weights of a checkpoint: averaged ones, if it has them.

    Args:
        run_dir: its folder.
        which: "newest" or "best".
        data_dir: folder of the images; default: that of the training.

    Raises:
        ValueError: if the run, a checkpoint or its data are missing.
    """
    folder = RunFolder(run_dir)
    config, _ = folder.read()
    checkpoint.find(folder.checkpoints, which, tell=lambda line: None)
    data = restore_data(folder, data_dir)
    # After the data: a run that goes on may delete a checkpoint found before they are loaded.
    path = checkpoint.find(folder.checkpoints, which, run=folder.recorded_id())
    model = restore_model(folder, path)
    return Network(f"{describe(config)}, step {step_of(path):,}", config, model, data, folder)


def describe(config: TrainConfig) -> str:
    """The name of a network: "ResNet-110, original, identity"."""
    return ", ".join(parts(config))


def parts(config: TrainConfig) -> list[str]:
    """The parts of the name of a network: "ResNet-110", "original", "identity"."""
    return [f"{_family(config)}-{config.depth}", *_parts(config)]


def kinds(configs: Sequence[TrainConfig]) -> list[str]:
    """The names of networks beside each other: the parts they do not share, without the depth."""
    return short_names([[_family(config), *_parts(config)] for config in configs])


def short_names(parts: Sequence[Sequence[str]]) -> list[str]:
    """Names of the parts that not all share; of all parts where none is left."""
    common = set.intersection(*map(set, parts))
    names = [", ".join(part for part in of_one if part not in common) for of_one in parts]
    return [name or ", ".join(of_one) for name, of_one in zip(names, parts, strict=True)]


def _family(config):
    return "PlainNet" if config.shortcut == "none" else "ResNet"


def _parts(config):
    parts = [user_code.label(config.unit)]
    # A factory of the user's decides on its shortcut itself.
    decides = user_code.parse(config.unit) is not None and config.shortcut == "identity"
    if config.shortcut != "none" and not decides:
        arguments = config.shortcut_arguments.replace(",", ", ")
        shortcut = user_code.label(config.shortcut)
        parts.append(shortcut + (f" ({arguments})" if arguments else ""))
    if config.block:
        parts.append(f"{config.block} units")
    if config.width_multiplier != 1:
        parts.append(f"width {config.width_multiplier:g}")
    return parts
