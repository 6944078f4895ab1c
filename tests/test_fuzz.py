"""Whatever lies in the files, the environment and the flags: one clear error, and nothing lost.

Each case harms a copy of a run at one place and calls a program on it. No case may end in a
traceback, change a file that is not the run's, or end with 0 where something has been lost.
"""

import dataclasses
import hashlib
import json
import os
import pathlib
import shutil
import tempfile

import pytest
from fork_server import TIMED_OUT
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st

from keras_preact.training import TrainConfig, run
from keras_preact.training.reporting import metrics_file

pytestmark = pytest.mark.slow

CASES = 2000
# Complete, refused, storage, worker not there.
CODES = {0, 2, 74, 75}
SECONDS = 120

DIGITS = ("--dataset=digits", "--depth=8", "--global_batch_size=128", "--warmup_steps=1")
EVALUATE = ("train.py", "--mode=evaluate", "--run_dir=run")
RESUME = ("train.py", "--resume", "--run_dir=run", "--max_runtime_minutes=0.05")
EXPORT = ("export.py", "--run_dir=run", "--output_dir=exports", "--tflite=", "--eval_images=1")
COMPARE = ("-m", "keras_preact.analysis", "compare", "run", "net1", "--output_dir=page")


@pytest.fixture(scope="module")
def area(tmp_path_factory):
    """Two runs and something of the user's own."""
    area = tmp_path_factory.mktemp("area")
    config = TrainConfig(dataset="digits", depth=8, train_steps=12, log_propagation_steps=6)
    run(config.updated(run_dir=str(area / "run")))
    shutil.copytree(area / "run", area / "net1")
    (area / "thesis").mkdir()
    (area / "thesis" / "thesis.tex").write_text("years of work")
    return area


class Case:
    """A copy of the area, to be harmed at one place."""

    def __init__(self, area):
        self._folder = tempfile.TemporaryDirectory()
        self.area = pathlib.Path(self._folder.name) / "area"
        shutil.copytree(area, self.area)
        self.run = self.area / "run"

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self._folder.cleanup()

    def call(self, server, *command, **env):
        """Runs a program here, and checks what holds of every case; its exit code."""
        before, run_before = digests(self.area), digests(self.run)
        steps = steps_of(self.run)
        code, output, errors = server.call(*command, cwd=self.area, timeout=SECONDS, **env)
        note(f"{command} {env} -> {code}\n{output[-500:]}\n{errors[-1500:]}")
        assert code != TIMED_OUT
        assert code in CODES
        assert "Traceback" not in output + errors
        assert code == 0 or code == 75 or errors.startswith("Error: ")
        after = digests(self.area)
        for name, digest in before.items():
            assert name.startswith("run/") or after.get(name) == digest, name
        if code == 2:
            assert digests(self.run) == run_before
        assert steps_of(self.run) >= steps
        return code


def digests(folder):
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


def steps_of(folder):
    """The possessions of a run: its newest and its best checkpoint, and its evaluations."""
    newest = [path.name for path in (folder / "checkpoints").glob("step-*")]
    best = [path.name for path in (folder / "checkpoints" / "best").glob("step-*")]
    try:
        rows = len(metrics_file.read(folder / "metrics.csv"))
    except ValueError:
        rows = 0
    return max(int(name[5:]) for name in newest), len(best), rows


def cases(share):
    return settings(
        max_examples=round(CASES * share),
        deadline=None,
        database=None,
        print_blob=True,
        suppress_health_check=list(HealthCheck),
    )


NUMBERS = st.sampled_from(
    [0, -1, 1, 2, 2**31 - 1, 2**31, 2**63, 10**400, 0.5, -0.0, 1e308, float("inf"), float("nan")]
)
LEAVES = st.none() | st.booleans() | NUMBERS | st.integers() | st.floats() | st.text(max_size=20)
VALUES = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=8,
)


@st.composite
def harmed_json(draw, record):
    """The bytes of a JSON file, with one place of it replaced, removed or added."""
    record = json.loads(json.dumps(record))
    parent, key = None, None
    place = record
    while isinstance(place, dict | list) and place and (parent is None or draw(st.booleans())):
        parent = place
        key = draw(st.sampled_from(list(place) if isinstance(place, dict) else range(len(place))))
        place = place[key]
    how = draw(st.sampled_from(["replace", "replace", "replace", "remove", "add", "bytes", "deep"]))
    if how == "replace":
        parent[key] = draw(VALUES)
    elif how == "remove":
        del parent[key]
    elif how == "add" and isinstance(place, dict):
        place[draw(st.text(max_size=8))] = draw(VALUES)
    text = json.dumps(record)
    if how == "deep":
        text = text.replace("{", f'{{"a": {"[" * 2000}{"]" * 2000}, ', 1)
    data = text.encode(errors="surrogatepass")
    return draw(harmed_bytes(data)) if how == "bytes" else data


@st.composite
def harmed_bytes(draw, data):
    """Bytes cut off, changed, or put in between."""
    place = draw(st.integers(0, len(data)))
    how = draw(st.sampled_from(["cut", "change", "insert", "other"]))
    some = draw(st.binary(min_size=1, max_size=20) | st.just(b"x" * 200_000))
    return {
        "cut": data[:place],
        "change": data[:place] + some + data[place + len(some) :],
        "insert": data[:place] + some + data[place:],
        "other": some,
    }[how]


@st.composite
def harmed_csv(draw, text):
    """The bytes of a CSV file, with a cell or a line changed."""
    lines = [line.split(",") for line in text.splitlines()]
    line = draw(st.integers(0, len(lines) - 1))
    how = draw(st.sampled_from(["cell", "cell", "line", "again", "bytes"]))
    if how == "cell":
        cell = draw(st.integers(0, len(lines[line]) - 1))
        lines[line][cell] = str(draw(LEAVES))
    elif how == "line":
        del lines[line]
    elif how == "again":
        lines.insert(draw(st.integers(0, len(lines))), lines[line])
    data = "".join(f"{','.join(cells)}\n" for cells in lines).encode(errors="surrogatepass")
    return draw(harmed_bytes(data)) if how == "bytes" else data


def config_record(area):
    return json.loads((area / "run" / "config.json").read_text())


@given(data=st.data())
@cases(0.25)
def test_a_record_of_a_run_may_hold_anything(server, area, data):
    with Case(area) as case:
        (case.run / "config.json").write_bytes(data.draw(harmed_json(config_record(area))))
        case.call(server, *data.draw(st.sampled_from([EVALUATE, RESUME, EXPORT, COMPARE])))


@given(data=st.data())
@cases(0.1)
def test_a_manifest_may_hold_anything(server, area, data):
    with Case(area) as case:
        folders = sorted((case.run / "checkpoints").rglob("manifest.json"))
        path = data.draw(st.sampled_from(folders))
        path.write_bytes(data.draw(harmed_json(json.loads(path.read_text()))))
        case.call(server, *data.draw(st.sampled_from([EVALUATE, RESUME, EXPORT])))


@pytest.mark.parametrize("name", ["metrics.csv", "propagation.csv"])
@given(data=st.data())
@cases(0.1)
def test_a_csv_of_a_run_may_hold_anything(server, area, name, data):
    with Case(area) as case:
        path = case.run / name
        path.write_bytes(data.draw(harmed_csv(path.read_text())))
        case.call(server, *data.draw(st.sampled_from([RESUME, COMPARE])))


ADDRESSES = ["localhost:1", "127.0.0.1:2", "localhost:99999", "localhost:-1", "localhost", ":", ""]
CLUSTER = {
    "cluster": {"worker": ["localhost:1", "127.0.0.1:2"], "chief": ["127.0.0.1:3"]},
    "task": {"type": "worker", "index": 0},
}
# No name that might be somebody's.
TASK_LEAVES = st.none() | st.booleans() | NUMBERS | st.sampled_from([*ADDRESSES, "worker", "chief"])


@given(data=st.data())
@cases(0.2)
def test_tf_config_may_hold_anything(server, area, data):
    record = json.loads(json.dumps(CLUSTER))
    place = data.draw(st.sampled_from([("cluster",), ("cluster", "worker"), ("task",)]))
    parent = record
    for key in place[:-1]:
        parent = parent[key]
    inner = parent[place[-1]]
    how = data.draw(st.sampled_from(["replace", "inner", "whole", "deep", "cut"]))
    value = data.draw(TASK_LEAVES | st.lists(TASK_LEAVES, max_size=3))
    if how == "replace":
        parent[place[-1]] = value
    elif how == "inner":
        keys = range(len(inner)) if isinstance(inner, list) else sorted(inner)
        inner[data.draw(st.sampled_from(keys))] = value
    text = json.dumps(value if how == "whole" else record)
    if how == "deep":
        text = "[" * 5000 + text + "]" * 5000
    elif how == "cut":
        text = text[: data.draw(st.integers(0, len(text)))]
    with Case(area) as case:
        flags = "--cluster_timeout_seconds=1", "--strategy=auto"
        case.call(server, *RESUME, *flags, TF_CONFIG=text.replace("\0", ""))


SLURM = {
    "SLURM_STEP_NUM_TASKS": "2",
    "SLURM_PROCID": "0",
    "SLURM_STEP_TASKS_PER_NODE": "2",
    "SLURM_STEP_NODELIST": "localhost",
}


@given(data=st.data())
@cases(0.05)
def test_variables_of_slurm_may_hold_anything(server, area, data):
    name = data.draw(st.sampled_from(list(SLURM)))
    values = [
        "",
        " ",
        "0",
        "1",
        "-1",
        "7",
        "two",
        "1e9",
        "9" * 5000,
        "2(x99999999)",
        "2(x",
        "\udcff",
    ]
    with Case(area) as case:
        case.call(server, *RESUME, **{**SLURM, name: data.draw(st.sampled_from(values))})


# Where they would leave the area, or take long, they are tried by name elsewhere.
FLAGS = [
    field.name
    for field in dataclasses.fields(TrainConfig)
    if field.name not in ("run_dir", "data_dir", "mode", "overwrite", "max_runtime_minutes")
]
TEXTS = st.sampled_from(
    [
        *("", " ", "none", "True", "0", "-1", "1", "2", "1.5", "1e308", "-1e308", "nan", "inf"),
        *(str(2**31 - 1), str(2**31), str(2**63), "9" * 5000, "-" * 5000 + "1", "(" * 5000),
        *("1,2", "2,1", ",", "1,,2", "cpu", "GPU:0", "GPU:99", "\x1b[31m", "a\nb", "\udcff"),
        *("*", "?", "[", "]", "\\", "$x", "foo://bar", "file://x", "s3://", "../up", "a" * 5000),
    ]
)
SHARE_OF_FLAGS = 0.2


@given(name=st.sampled_from(FLAGS), value=TEXTS | st.text(max_size=10))
@cases(SHARE_OF_FLAGS / 2)
def test_a_flag_of_a_run_that_goes_on_may_be_anything(server, area, name, value):
    with Case(area) as case:
        flag = f"--{name}={value}".replace("\0", "")
        case.call(server, *RESUME, "--train_steps=13", flag)


@given(name=st.sampled_from([*FLAGS, "run_dir"]), value=TEXTS | st.text("ab*?[]\\:. ", max_size=6))
@cases(SHARE_OF_FLAGS / 2)
def test_a_flag_of_a_new_run_may_be_anything(server, area, name, value):
    with Case(area) as case:
        inside = case.area / "runs"
        flag = f"--{name}={value}".replace("\0", "").replace("..", "")
        command = "train.py", *DIGITS, "--train_steps=1", "--run_dir=runs/new", RESUME[-1], flag
        case.call(server, *command)
        if name != "run_dir":
            assert set(os.listdir(case.area)) - {"runs"} == {"run", "net1", "thesis"}
            assert not inside.exists() or os.listdir(inside) == ["new"]
