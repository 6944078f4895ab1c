"""Files of weights: `.keras` for Keras itself, safetensors for other frameworks."""

from collections.abc import Sequence

import keras
from etils import epath

from keras_preact.exporting.checks.parity import Predict
from keras_preact.exporting.source import predictor
from keras_preact.layers import Preprocessing
from keras_preact.models import Network
from keras_preact.models.foreign import convert, write_safetensors
from keras_preact.support.console import say

# Of the files: scripts then need not know the depth.
NAME = "model"


def write(model: Network, folder: epath.Path, kinds: Sequence[str]) -> None:
    """Writes model.keras and model.safetensors, whichever are wanted.

    Both carry the architecture and the preprocessing. `.keras` is read by
    `keras.models.load_model` after `import keras_preact`, both by `keras_preact.convert`.

    Args:
        model: float32, with its preprocessing.
        folder: a folder that does not exist yet.
        kinds: some of `config.WEIGHTS`.

    Raises:
        ValueError: if safetensors are wanted of a model whose architecture has no name.
    """
    if model.arguments is None and "safetensors" in kinds:
        raise ValueError(
            "A safetensors file names the units of its network, and can name no factory: leave "
            f"safetensors out of formats. Received: {model.name}, of units of a factory"
        )
    folder.mkdir(parents=True)
    writers = {"keras": model.save, "safetensors": lambda path: write_safetensors(model, path)}
    for kind in kinds:
        say(f"Writing {kind}")
        writers[kind](str(folder / f"{NAME}.{kind}"))


def read(path: epath.Path, preprocessing: Preprocessing) -> Predict:
    """Reads a file again, as a user does, and returns it as a function to probabilities."""
    if path.suffix == ".keras":
        model = keras.models.load_model(str(path), compile=False)
    else:
        model = convert(str(path))
    return predictor(model, preprocessing)
