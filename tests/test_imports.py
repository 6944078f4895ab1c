"""The layers of the house: who may import whom, and what the library needs."""

import ast
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "keras_preact"

# Each room may import itself and some of those before it.
MAY_IMPORT = {
    "support": set(),
    "layers": {"support"},
    "models": {"support", "layers"},
    "data": {"support", "layers"},
    "analysis": {"support", "layers", "models"},
    "training": {"support", "layers", "models", "data", "analysis"},
    "inspection": {"support", "layers", "models", "data", "training"},
    "exporting": {"support", "layers", "models", "data", "training"},
    "conversion": {"support", "layers", "models", "data", "training"},
    "prediction": {"support", "layers", "models", "data", "training", "exporting"},
    "evaluation": {
        *("support", "layers", "models", "data", "analysis"),
        *("training", "exporting", "prediction"),
    },
    "studies": {"support", "layers", "models", "data", "analysis", "training"},
    "experiments": {"support", "layers", "models", "data", "analysis", "training", "studies"},
    "doctor": {"support", "layers", "models", "data", "training", "benchmark"},
    "benchmark": {"support", "layers", "models", "data", "training", "exporting"},
    "programs": {
        "support",
        "training",
        "inspection",
        "exporting",
        "conversion",
        "prediction",
        "evaluation",
        "studies",
        "experiments",
        "benchmark",
    },
}


def imported_modules(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} has a relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_imports_only_point_down(room):
    # A program stands above all rooms, also where it lies in one of them.
    files = [path for path in (PACKAGE / room).rglob("*.py") if path.name != "__main__.py"]
    assert len(files) > 2
    for path in files:
        for module in imported_modules(path):
            parts = module.split(".")
            if parts[0] == "keras_preact" and parts[1] != "version":
                assert parts[1] in {room, *MAY_IMPORT[room]}, f"{path} imports {module}"


def test_every_room_has_its_place_in_the_order():
    rooms = {path.name for path in PACKAGE.iterdir() if (path / "__init__.py").exists()}
    assert rooms == set(MAY_IMPORT)


def test_the_library_imports_only_tensorflow_keras_and_numpy():
    # In a process of its own, as this one has imported everything already.
    program = """
import sys, keras, numpy, tensorflow
before = set(sys.modules)
import keras_preact
keras_preact.ResNetV2(8)
new = {name.partition(".")[0] for name in set(sys.modules) - before}
print(sorted(new - set(sys.stdlib_module_names) - {"keras_preact", "keras", "tensorflow", "numpy"}))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.stdout.strip() == "[]", done.stderr[-2000:]
