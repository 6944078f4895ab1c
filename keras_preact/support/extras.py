"""The packages that the programs need beside the library's own three."""

import importlib.util

from keras_preact.support import startup

# The modules of the packages in the extra "train" of pyproject.toml.
MODULES = (
    *("absl", "ai_edge_litert", "etils", "flatbuffers", "google.protobuf", "importlib_resources"),
    *("matplotlib", "pydantic", "safetensors", "sklearn", "tensorboard", "tensorflow_datasets"),
    *("tensorflow_serving", "tqdm"),
)
INSTALL = 'pip install "keras_preact[train]"'


def check() -> None:
    """Refuses to go on without a package that training, data or exports need.

    Raises:
        ModuleNotFoundError: if one is missing; it names the install. A program ends with the
            message alone.
    """
    missing = [name for name in MODULES if not _is_installed(name)]
    if missing:
        names = ", ".join(missing)
        startup.refuse(
            ModuleNotFoundError(
                f"Training, data and exports need more packages: {INSTALL}. Not found: {names}",
                name=missing[0],
            )
        )


def _is_installed(name):
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:  # of the package around it
        return False
