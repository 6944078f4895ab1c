"""What takes long to make and is only read, made by one process of a test run for all."""

import fcntl
import os
import pathlib
import pickle
import tempfile
from collections.abc import Callable
from typing import Any


def shared(tmp_path_factory, name: str, make: Callable[[pathlib.Path], Any]) -> Any:
    """Returns what `make` returns; the workers of pytest-xdist get copies of one result.

    Args:
        tmp_path_factory: of pytest.
        name: of the result.
        make: takes a new folder, and returns what can be pickled.
    """
    root = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent
    result = root / f"{name}.pickle"
    with open(root / f"{name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not result.exists():
            folder = pathlib.Path(tempfile.mkdtemp(prefix=f"{name}_", dir=root))
            result.write_bytes(pickle.dumps(make(folder)))
        return pickle.loads(result.read_bytes())
