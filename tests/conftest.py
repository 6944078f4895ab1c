"""The state that every test starts from."""

import os

# Before TensorFlow is imported anywhere.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
# Leaves memory of a GPU to the programs that tests start.
os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")

import keras
import pytest
import tensorflow as tf
from fork_server import ForkServer
from tensorflow.python.framework import config  # the only place that can end determinism

# Two devices, on which strategies place replicas; must come before TensorFlow computes anything.
tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
)

# Tests compare numbers.
tf.config.experimental.enable_tensor_float_32_execution(False)

# A run hides other GPUs from TensorFlow for as long as the process lasts; later tests need them.
if gpus := tf.config.list_physical_devices("GPU"):
    for gpu in gpus:
        tf.config.experimental.set_memory_growth(gpu, True)
    tf.config.list_logical_devices()

# Their tests start programs and take longest: begun last, they would keep the others waiting.
LONGEST = ("test_docs.py", "test_workers.py", "test_programs.py", "test_startup.py", "test_door.py")


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: item.path.name not in LONGEST)


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    """Runs programs in forks of one process."""
    with ForkServer(tmp_path_factory.mktemp("output")) as server:
        yield server


@pytest.fixture(scope="session", autouse=True)
def cache_folder(tmp_path_factory):
    """The user's cache folder, apart from the user's own."""
    folder = tmp_path_factory.mktemp("user_cache")
    os.environ["XDG_CACHE_HOME"] = str(folder)
    return folder


@pytest.fixture(autouse=True)
def fresh_state():
    """float32, fixed seeds and no determinism, whatever the test before has set."""
    keras.config.set_dtype_policy("float32")
    keras.utils.set_random_seed(0)
    yield
    keras.config.set_dtype_policy("float32")
    # A deterministic run leaves its process deterministic, where others cannot read a clock.
    if config.is_op_determinism_enabled():
        config.disable_op_determinism()
