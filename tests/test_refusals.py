"""Mistakes of a user: exit code 2, one error that names the mistake, nothing written."""

import json
import os
import shutil

import numpy as np
import pytest
import tensorflow as tf
from absl import flags as absl_flags

from keras_preact import ResNetV2
from keras_preact.analysis import __main__ as analysis
from keras_preact.exporting import ExportConfig
from keras_preact.programs import export, train
from keras_preact.studies.config import AnalysisConfig
from keras_preact.support import flags, program
from keras_preact.support.lock import locked
from keras_preact.training import TrainConfig, run
from keras_preact.training.reporting import propagation_file

# main, its configuration, and under which name it takes words.
PROGRAMS = {
    "train.py": (train.main, TrainConfig, None),
    "export.py": (export.main, ExportConfig, None),
    "analysis": (analysis.main, AnalysisConfig, "words"),
}
SYNTHETIC = ["train.py", "--dataset=synthetic", "--depth=8", "--run_dir=HERE/new"]
DIGITS = ["train.py", "--dataset=digits", "--depth=8", "--train_steps=1", "--run_dir=HERE/new"]


def refused(command, capsys):
    """The error with which a program ends that is called in this process."""
    name, *arguments = command
    main, config_class, words = PROGRAMS[name]
    values = absl_flags.FlagValues()
    flags.define(config_class, values)
    with pytest.raises(SystemExit) as ended, program.ending(config_class, "nothing is done"):
        _, *rest = flags.parser("", config_class, values, bool(words))([name, *arguments])
        main(flags.given(config_class, values) | ({words: rest} if words else {}))
    error = capsys.readouterr().err
    assert ended.value.code == 2, error
    # absl and Python's own warnings aside, the error is all there is.
    assert error.startswith("Error: ") and "Traceback" not in error
    return error


def write_image(path, seed):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (9, 9, 3), np.uint8)
    path.write_bytes(tf.io.encode_png(pixels).numpy())


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A finished run, a folder of images, and files that are not what they should be."""
    root = tmp_path_factory.mktemp("prepared")
    run(TrainConfig(dataset="digits", depth=8, train_steps=1, run_dir=str(root / "run")))
    for seed, split in enumerate(("train", "val")):
        for name in ("ant", "bee", "cat"):
            write_image(root / "images" / split / name / "1.png", seed)
    (root / "file").write_text("no folder")
    (root / "thesis").mkdir()
    (root / "thesis" / "thesis.tex").write_text("years of work")
    (root / "exports" / "saved_model" / "1").mkdir(parents=True)
    report = {"data": {"class_names": ["ant", "bee"], "image_shape": [8, 8, 1]}, "model_name": "n"}
    (root / "exports" / "report.json").write_text(json.dumps(report))
    (root / "text.keras").write_text("no model")
    ResNetV2(8, input_shape=(8, 8, 1), classes=7).save(root / "seven.keras")
    (root / "typo.flags").write_text("# a recipe\n--dataset=digits\n--dpeth=20\n")
    (root / "word.flags").write_text("--depth=20\ndataset=digits\n")
    (root / "images.flags").write_text("--images=8\n--imagse=8\n")
    (root / "value.flags").write_text(f"--flagfile={root / 'typo.flags'}\n")
    return root


@pytest.fixture
def here(tmp_path, prepared):
    """A copy of what was prepared, to harm."""
    shutil.copytree(prepared, tmp_path / "here")
    return tmp_path / "here"


HALVES = "--devices=CPU:0,CPU:1"
FOLDER = [
    *("train.py", "--dataset=folder", "--depth=8", "--data_dir=HERE/images", "--image_size=8"),
    "--run_dir=HERE/new",
]
EXPORT = ["export.py", "--run_dir=HERE/run", "--output_dir=HERE/new"]
MODEL = ["export.py", "--dataset=digits", "--output_dir=HERE/new"]
AGAIN = ["train.py", "--run_dir=HERE/run", "--resume"]
NEW_NETS = ["analysis", "--dataset=digits", "--depth=8", "--images=1", "--output_dir=HERE/new"]
OF_RUN = ["analysis", "--run_dir=HERE/run", "--images=1"]
RUNS = ["analysis", "compare", "--output_dir=HERE/new"]


@pytest.mark.parametrize(
    ("command", "words"),
    [
        # Flags.
        (["train.py", "--dpeth=20"], ["dpeth", "depth"]),
        ([*DIGITS, "--depth=deep"], ["--depth=deep"]),
        ([*DIGITS, "--unit=full_preactivatoin"], ["Did you mean 'full_preactivation'?"]),
        ([*DIGITS, "--momentum=1.5"], ["momentum must be below 1. Received: momentum=1.5"]),
        ([*DIGITS, "--log_propagation_steps=-1"], ["log_propagation_steps must be at least 0"]),
        ([*DIGITS, "--on_nan=ignore"], ["on_nan", "stop, rollback", "'ignore'"]),
        ([*DIGITS, "--max_runtime_minutes=0"], ["max_runtime_minutes must be above 0"]),
        ([*DIGITS, "--depth=21"], ["6n+2", "21"]),
        ([*DIGITS, "--depth=2147483642"], ["at most", "units", "depth=2147483642"]),
        ([*DIGITS, "--depth="], ["--depth=: must be a whole number"]),
        ([*DIGITS, "--seed=" + "9" * 5000], ["must be a whole number of at most 40 digits"]),
        ([*DIGITS, "--momentum=1\0"], [r"--momentum=1\x00: must be a number"]),
        ([*DIGITS, "--width_multiplier=1e308"], ["width_multiplier must be at most"]),
        ([*DIGITS, "--width_multiplier=1e5"], ["must fit into memory", "--width_multiplier"]),
        (
            [*DIGITS, "--global_batch_size=2147483647"],
            ["2,147,483,647 images", "must fit into memory", "at least", "--global_batch_size"],
        ),
        (
            ["train.py", "--mode=evaluate", "--run_dir=HERE/run", "--global_batch_size=2147483647"],
            ["2,147,483,647 images", "must fit into memory", "at least", "--global_batch_size"],
        ),
        (
            [*DIGITS, "--dataset=synthetic", "--image_size=2147483647"],
            ["An image of 2147483647x2147483647 pixels must fit into memory", "--image_size"],
        ),
        ([*FOLDER, "--image_size=2147483647"], ["2147483647 pixels must fit into memory"]),
        ([*DIGITS, "--recompute_bn_batches=2147483647"], ["recompute_bn_batches", "100000"]),
        (
            [*SYNTHETIC, "--image_size=1", "--global_batch_size=2", "--log_propagation_steps=1"],
            ["global_batch_size must be at least 3", "1x1 pixels", "global_batch_size=2"],
        ),
        (
            [*DIGITS, "--shortcut=dropout", "--shortcut_arguments=rate=" + "-" * 5000 + "1"],
            ["each value a number"],
        ),
        (
            [*DIGITS, "--shortcut=dropout", "--shortcut_arguments=rate=" + "[" * 5000],
            ["each value a number"],
        ),
        ([*DIGITS, "--shortcut=dropout", "--shortcut_arguments=\0=1"], ["takes rate", r"\x00"]),
        ([*DIGITS, "--shortcut_arguments=scale"], ["NAME=VALUE", "'scale'"]),
        ([*DIGITS, "--resume", "--overwrite"], ["resume and overwrite contradict each other"]),
        ([*DIGITS, "--devices=GPU:7"], ["devices must be", "GPU:7"]),
        (["train.py", "20"], ["20"]),
        # Files of flags.
        (["train.py", "--flagfile=HERE/none.flags"], ["HERE/none.flags", "No such file"]),
        (["train.py", "--flagfile=HERE/typo.flags"], ["HERE/typo.flags, line 3", "dpeth"]),
        (["train.py", "--flagfile=HERE/value.flags"], ["HERE/typo.flags, line 3", "dpeth"]),
        (["train.py", "--flagfile=HERE/word.flags"], ["HERE/word.flags, line 2", "dataset=digits"]),
        # Data.
        ([*DIGITS, "--dataset=digit"], ["Did you mean 'digits'?"]),
        ([*FOLDER, "--data_dir=HERE/none"], ["HERE/none", "train/CLASS/IMAGE"]),
        ([*FOLDER, "--data_dir=HERE/file"], ["HERE/file", "not a folder"]),
        ([*FOLDER, "--data_dir=HERE/thesis"], ["HERE/thesis", "train/CLASS/IMAGE"]),
        ([*FOLDER, "--global_batch_size=3", HALVES], ["2 or 4", "global_batch_size=3"]),
        # Folders of runs.
        ([*DIGITS, "--run_dir=HERE/file"], ["run_dir must be a folder", "HERE/file"]),
        ([*DIGITS, "--run_dir=HERE/file/new"], ["run_dir must be a folder", "HERE/file"]),
        ([*DIGITS, "--run_dir=/proc/new"], ["run_dir must be a folder", "/proc/new"]),
        ([*DIGITS, "--run_dir=HERE/thesis"], ["HERE/thesis holds something else"]),
        ([*DIGITS, "--run_dir=HERE/run"], ["holds a run already", "--resume", "--overwrite"]),
        ([*AGAIN, "--seed=1", "--depth=14"], ["in the run  now", "seed   0           1", "14"]),
        (["train.py", "--mode=evaluate"], ["run_dir must be given"]),
        (["train.py", "--mode=evaluate", "--run_dir=HERE/thesis"], ["HERE/thesis/config.json"]),
        (["export.py"], ["run_dir must be given"]),
        (["export.py", "--run_dir=HERE/thesis"], ["HERE/thesis/config.json"]),
        (["export.py", "--run_dir=HERE/file"], ["HERE/file/config.json"]),
        ([*EXPORT, "--checkpoint=last"], ["newest, best", "'last'"]),
        # Sources of an export.
        ([*EXPORT, "--model=HERE/seven.keras"], ["run_dir must be given", "or model"]),
        ([*EXPORT, "--dataset=digits"], ["for model alone", "dataset='digits'"]),
        (["export.py", "--model=HERE/seven.keras"], ["model needs dataset", "HERE/seven.keras"]),
        ([*MODEL, "--model=HERE/seven.h5"], ["model must be a .keras file", "seven.h5"]),
        ([*MODEL, "--model=HERE/none.keras"], ["HERE/none.keras", "not there"]),
        ([*MODEL, "--model=HERE/text.keras"], ["model cannot be read", "HERE/text.keras"]),
        ([*MODEL, "--model=HERE/seven.keras"], ["7 classes", "10 classes"]),
        # To where.
        ([*EXPORT, "--output_dir=HERE/file"], ["output_dir must be a folder", "HERE/file"]),
        ([*EXPORT, "--output_dir=HERE/file/new"], ["output_dir must be a folder", "HERE/file"]),
        ([*EXPORT, "--output_dir=/proc/new"], ["output_dir must be a folder", "/proc/"]),
        ([*EXPORT, "--output_dir=HERE/thesis"], ["HERE/thesis holds something else"]),
        ([*EXPORT, "--output_dir=HERE/exports", "--version=1"], ["version must be", "beside [1]"]),
        ([*EXPORT, "--output_dir=HERE/exports"], ["have the same class_names", "--output_dir"]),
        # How.
        ([*EXPORT, "--version=0"], ["version must be at least 1", "version=0"]),
        ([*EXPORT, "--tflite=int8,int4"], ["tflite must be", "'int4'", "Did you mean 'int8'"]),
        ([*EXPORT, "--calibration_images=0"], ["calibration_images must be at least 1"]),
        ([*EXPORT, "--eval_images=0"], ["eval_images must be at least 1", "eval_images=0"]),
        ([*EXPORT, "--float32_tolerance=-1"], ["float32_tolerance must be at least 0", "-1"]),
        ([*EXPORT, "--float16_tolerance=nan"], ["float16_tolerance must be at least 0", "nan"]),
        ([*EXPORT, "--int8_loss_points=inf"], ["int8_loss_points must be", "finite", "inf"]),
        ([*EXPORT, "--model_name=a/b"], ["model_name must begin with", "'a/b'"]),
        # Subjects of an analysis.
        (["analysis", "lesoin"], ["propagation, initialisation", "Did you mean 'lesion'?"]),
        ([*NEW_NETS, "propagation", "again"], ["Only flags may follow propagation", "again"]),
        ([*OF_RUN, "lesion", "HERE/run"], ["Only flags may follow lesion", "HERE/run"]),
        ([*NEW_NETS, "lesion"], ["lesion needs run_dir", "run_dir=None"]),
        (
            [*OF_RUN, "initialisation"],
            ["initialisation measures new networks", "run_dir='HERE/run'"],
        ),
        ([*RUNS, "HERE/run", "--run_dir=HERE/run"], ["compare measures the runs named after it"]),
        (RUNS, ["compare needs the folders", "Received: none"]),
        ([*RUNS, "HERE/run", "HERE/run"], ["each once", "Received: HERE/run HERE/run"]),
        ([*RUNS, "HERE/run", "HERE/thesis"], ["HERE/thesis/config.json"]),
        (["analysis", "--run_dir=HERE/none"], ["There is no HERE/none/config.json"]),
        ([*OF_RUN, "--checkpoint=last"], ["newest, best", "'last'"]),
        ([*NEW_NETS, "--depth=8,21"], ["6n+2", "depth=21"]),
        ([*NEW_NETS, "--shortcut=identity,idenity"], ["Did you mean 'identity'?"]),
        ([*NEW_NETS, "--shortcut=dropout:keep=0.5"], ["Dropout takes", "Received: keep"]),
        ([*NEW_NETS, "--images=0"], ["images must be at least 1", "images=0"]),
        ([*NEW_NETS, "--depth=2147483642"], ["at most", "units", "depth=2147483642"]),
        ([*NEW_NETS, "--width_multiplier=1e5"], ["must fit into memory", "--width_multiplier"]),
        (["analysis", "initialisation", "--draws=2147483647"], ["draws must be", "at most 10000"]),
        (
            [*NEW_NETS, "--dataset=synthetic", "--image_size=1", "--images=2"],
            ["images must be at least 3", "1x1 pixels", "images=2"],
        ),
        (
            [*NEW_NETS, "--dataset=synthetic", "--image_size=4"],
            ["images must be at least 3", "1x1 of each", "images=1"],
        ),
        ([*NEW_NETS, "--dataset=digit"], ["Did you mean 'digits'?"]),
        ([*NEW_NETS, "--imagse=1"], ["imagse", "images"]),
        (["analysis", "lesion", "--flagfile=HERE/images.flags"], ["HERE/images.flags, line 2"]),
        ([*NEW_NETS, "--output_dir=HERE/file"], ["output_dir must be a folder", "HERE/file"]),
        ([*NEW_NETS, "--output_dir=HERE/file/new"], ["output_dir must be a folder", "HERE/file"]),
        ([*NEW_NETS, "--output_dir=/proc/new"], ["output_dir must be a folder", "/proc/"]),
        ([*NEW_NETS, "--output_dir=HERE/thesis"], ["HERE/thesis, which holds something else"]),
        ([*OF_RUN, "--output_dir=HERE/run"], ["HERE/run, which holds something else"]),
    ],
    ids=lambda value: " ".join(value)[:200] if isinstance(value, list) else None,
)
def test_what_cannot_be_is_refused_before_anything_is_written(prepared, capsys, command, words):
    before = sorted(map(str, prepared.rglob("*")))
    error = refused([word.replace("HERE", str(prepared)) for word in command], capsys)
    for word in words:
        assert word.replace("HERE", str(prepared)) in error
    assert sorted(map(str, prepared.rglob("*"))) == before


def test_a_folder_in_use_is_refused_and_its_user_named(prepared, capsys):
    with locked(prepared / "run"):
        error = refused([word.replace("HERE", str(prepared)) for word in AGAIN], capsys)
    assert f"{prepared / 'run'} is in use by process {os.getpid()}" in error
    with locked(prepared / ".new.unfinished"):
        error = refused([word.replace("HERE", str(prepared)) for word in EXPORT], capsys)
    assert f"is in use by process {os.getpid()}" in error and "--output_dir" in error


def cut(path):
    path.write_bytes(path.read_bytes()[:-20])


def without_class(here):
    shutil.rmtree(here / "images" / "val" / "bee")


def fifo(here):
    os.mkfifo(here / "images" / "train" / "bee" / "2.jpg")


def thin(here):
    file = tf.io.encode_png(np.zeros((1, 20_000, 1), np.uint8))
    (here / "images" / "val" / "bee" / "2.png").write_bytes(file.numpy())


def named_no_utf8(here):
    write_image(here / "images" / "val" / "bee" / os.fsdecode(b"\xff.png"), 0)


def class_of_two_lines(here):
    (here / "images" / "train" / "bee").rename(here / "images" / "train" / "be\ne")


def of_another_net(here):
    record = json.loads((here / "run" / "config.json").read_text())
    record["config"]["depth"] = 14
    (here / "run" / "config.json").write_text(json.dumps(record))


def all_damaged(here):
    for path in (here / "run" / "checkpoints").rglob("*.index"):
        cut(path)


EVALUATE = ["train.py", "--mode=evaluate", "--run_dir=HERE/run"]
COMPARE = ["analysis", "compare", "HERE/run", "--images=1", "--output_dir=HERE/new"]
# Each reads config.json.
READERS = (AGAIN, EVALUATE, EXPORT, [*OF_RUN, "--output_dir=HERE/new"], COMPARE)


def with_record(place, value):
    """Gives a field of the run's config.json another value."""

    def harm(here):
        path = here / "run" / "config.json"
        record = part = json.loads(path.read_text())
        *parents, name = place.split(".")
        for parent in parents:
            part = part[parent]
        part[name] = value
        path.write_text(json.dumps(record).replace('"DEEP"', "[" * 900 + "]" * 900))

    return harm


def with_file(name, data):
    """Gives a file, or all of a pattern, other contents."""

    def harm(here):
        for path in list(here.glob(name)) or [here / name]:
            path.write_bytes(data)

    return harm


def with_line(name, line):
    """Adds a line to a file of the run, which may not be there yet."""

    def harm(here):
        path = here / "run" / name
        if not path.exists():
            path.write_text(",".join(propagation_file.COLUMNS) + "\n")
        path.write_bytes(path.read_bytes() + line + b"\n")

    return harm


def as_file(name):
    def harm(here):
        shutil.rmtree(here / "run" / name)
        (here / "run" / name).write_text("not the events")

    return harm


# A record, and what its error says.
NO_RECORDS = [
    (with_record("config.devices", 1), "config.devices must be a string or null. Received: 1"),
    (with_record("config.devices", ["cpu"]), "config.devices must be a string or null"),
    (with_record("config.deterministic", "false"), 'must be true or false. Received: "false"'),
    (with_record("config.new", 1), 'Unknown configuration fields: "new"'),
    (with_record("config", "DEEP"), "it must be nested at most 64 deep"),
    (with_record("dataset", 5), "dataset must be an object. Received: 5"),
    (with_record("dataset.mean", ["a"]), 'dataset.mean[0] must be a number. Received: "a"'),
    (with_record("dataset.mean", None), "dataset.mean must be a list. Received: null"),
    (with_record("history", 5), "history must be a list. Received: 5"),
    (with_record("history", None), "history must be a list. Received: null"),
    (with_record("history", "DEEP"), "it must be nested at most 64 deep"),
    (with_file("run/config.json", b"{}"), "config must be given"),
    (with_file("run/config.json", b"\xff"), "it must be UTF-8"),
]
# Damaged tables, with the errors of --resume and of an analysis.
NO_METRICS = [
    (with_line("metrics.csv", b"2," + b"9" * 200_000), "metrics.csv", "field limit (131072)"),
    (with_line("metrics.csv", b"\x89PNG\xff"), "metrics.csv", "it must be UTF-8"),
    (with_line("metrics.csv", b"2,\0"), "metrics.csv", "a NUL byte"),
    (with_line("metrics.csv", b"2,1,1,1,inf,1,1,1,1"), "metrics.csv", "line 3"),
    (with_file("run/metrics.csv", b"step,loss\n"), "metrics.csv", 'line 1: ["step", "loss"]'),
]
NO_PROPAGATION = [
    (with_line("propagation.csv", b"2," + b"9" * 200_000), "propagation.csv", "(131072)"),
    (with_line("propagation.csv", b"\x89PNG\xff"), "propagation.csv", "it must be UTF-8"),
    (with_line("propagation.csv", b"2,unit,1,2,3,4,5,6,x"), "propagation.csv", "line 2"),
]


@pytest.mark.parametrize(
    ("harm", "command", "words"),
    [
        *(
            (harm, command, ["HERE/run/config.json is not the record of a run", words])
            for place, (harm, words) in enumerate(NO_RECORDS)
            # Each program meets some of them, one meets all: they read it in one way.
            for command in (READERS if place in (0, 8) else READERS[place % 5 : place % 5 + 1])
        ),
        *(
            (harm, command, [f"HERE/run/{name}", words])
            for harm, name, words in NO_METRICS
            for command in (AGAIN, COMPARE)
        ),
        *(
            (harm, command, [f"HERE/run/{name}", words])
            for harm, name, words in NO_PROPAGATION
            for command in (AGAIN, [*OF_RUN, "--output_dir=HERE/new"])
        ),
        *(
            (
                with_file("run/checkpoints/**/manifest.json", text),
                command,
                ["All checkpoints in HERE/run", "are damaged"],
            )
            for text in (b"[" * 5000, b'{"files": {"../../config.json": null}}')
            for command in (AGAIN, EXPORT)
        ),
        *(
            (
                with_file("exports/report.json", text),
                [*EXPORT, "--output_dir=HERE/exports"],
                ["HERE/exports/report.json is not the report of an export", words],
            )
            for text, words in (
                (b"[" * 5000, "nested at most 64 deep"),
                (b'{"data": [], "model_name": "n"}', "data must be an object"),
                (b'{"data": {"class_names": ["a"], "image_shape": null}}', "data.image_shape"),
            )
        ),
        (
            as_file("tensorboard"),
            AGAIN,
            ["HERE/run/tensorboard must be a folder, or not there", "Move it away"],
        ),
        (without_class, FOLDER, ["must hold the same class folders", "val", "bee"]),
        (
            lambda here: (here / "images" / "train" / "bee" / "1.png").unlink(),
            FOLDER,
            ["Every class folder must hold an image", "HERE/images/train/bee"],
        ),
        (
            lambda here: cut(here / "images" / "val" / "bee" / "1.png"),
            FOLDER,
            ["HERE/images/val/bee/1.png", "--skip_bad_images"],
        ),
        (fifo, FOLDER, ["HERE/images/train/bee/2.jpg: a FIFO", "--skip_bad_images"]),
        (
            thin,
            [*FOLDER, "--image_size=224"],
            ["HERE/images/val/bee/2.png: An image must have 1 to 50,000,000 pixels"],
        ),
        (named_no_utf8, FOLDER, [r"HERE/images/val/bee/\udcff.png: its name is not UTF-8"]),
        (class_of_two_lines, FOLDER, [r"Received, in HERE/images/train: 'be\ne'"]),
        (
            lambda here: (here / "run" / "config.json").write_text("{"),
            AGAIN,
            ["HERE/run/config.json is not the record of a run"],
        ),
        (
            with_line("metrics.csv", b"first"),
            AGAIN,
            ["HERE/run/metrics.csv", "line 3", "first"],
        ),
        (all_damaged, AGAIN, ["All checkpoints in", "step-1"]),
        (all_damaged, ["export.py", "--run_dir=HERE/run"], ["All checkpoints in", "step-1"]),
        (all_damaged, ["analysis", "--run_dir=HERE/run"], ["All checkpoints in", "step-1"]),
        (of_another_net, AGAIN, ["another architecture", "stage1_unit2", "more"]),
        (
            of_another_net,
            ["train.py", "--mode=evaluate", "--run_dir=HERE/run"],
            ["another architecture", "stage1_unit2", "absent in the checkpoint"],
        ),
    ],
)
def test_what_has_been_damaged_is_named(here, capsys, harm, command, words):
    harm(here)
    before = contents(here)
    error = refused([word.replace("HERE", str(here)) for word in command], capsys)
    for word in words:
        assert word.replace("HERE", str(here)) in error
    assert contents(here) == before


def contents(folder):
    """The files in a folder with what they hold, but for locks and caches of data."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != ".lock"]
    # What a check has found is kept even where it refuses the folder.
    paths = [path for path in files if not path.match(".keras_preact-*.cache")]
    return {path: path.read_bytes() for path in paths}


def of_task(index):
    cluster = '{"worker": ["a:1", "b:1"]}'
    return f'{{"cluster": {cluster}, "task": {{"type": "worker", "index": {index}}}}}'


@pytest.mark.parametrize("command", [DIGITS, AGAIN, EVALUATE], ids=["new", "resume", "evaluate"])
@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"TF_CONFIG": "[" * 5000}, ["TF_CONFIG must be like", "nested at most 64 deep"]),
        ({"TF_CONFIG": "null"}, ["TF_CONFIG must be like", "it must be an object. Received: null"]),
        ({"TF_CONFIG": of_task("Infinity")}, ["task.index must be a whole number"]),
        (
            {"TF_CONFIG": of_task("0").replace('"worker", "index"', '5, "index"')},
            ["task.type must"],
        ),
        ({"TF_CONFIG": of_task("0").replace("a:1", "a:99999")}, ["with a port of 1 to 65535"]),
        ({"SLURM_STEP_NUM_TASKS": "abc"}, ["SLURM_STEP_NUM_TASKS must be a whole number"]),
        ({"SLURM_STEP_NUM_TASKS": "2", "SLURM_PROCID": "x"}, ["SLURM_PROCID must be a whole"]),
        (
            {
                "SLURM_STEP_NUM_TASKS": "2",
                "SLURM_PROCID": "0",
                "SLURM_STEP_TASKS_PER_NODE": "1(x99999999)",
                "SLURM_STEP_NODELIST": "a",
            },
            ["SLURM_STEP_TASKS_PER_NODE must have at most"],
        ),
    ],
    ids=range(8),
)
def test_an_environment_that_cannot_be_is_refused_before_anything_is_written(
    prepared, capsys, monkeypatch, command, variables, words
):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    before = contents(prepared)
    error = refused([word.replace("HERE", str(prepared)) for word in command], capsys)
    for word in words:
        assert word in error
    assert contents(prepared) == before and not (prepared / "new").exists()


TAKE_PATHS = [
    ([*DIGITS, "--run_dir=PATH"], "run_dir"),
    (["train.py", "--mode=evaluate", "--run_dir=PATH"], "run_dir"),
    ([*FOLDER, "--data_dir=PATH"], "data_dir"),
    (["export.py", "--run_dir=PATH"], "run_dir"),
    ([*EXPORT, "--output_dir=PATH"], "output_dir"),
    ([*MODEL, "--model=PATH/net.keras"], "model"),
    (["analysis", "--run_dir=PATH"], "run_dir"),
    ([*NEW_NETS, "--output_dir=PATH"], "output_dir"),
    ([*NEW_NETS, "--data_dir=PATH"], "data_dir"),
    ([*RUNS, "HERE/run", "PATH"], "RUN"),
]
WILD = [("HERE/a*", "must not hold *"), ("HERE/link", "must not hold [ ]")]
IMPOSSIBLE = [
    ("HERE/loop", "Too many levels of symbolic links"),
    (os.fsdecode(b"HERE/\xe9"), "must be UTF-8"),
    ("HERE/a\nb", "control characters"),
    (f"HERE/{'x' * 256}", "at most 255 bytes"),
    ("foo://a", "or gs://BUCKET/PATH"),
    ("file://HERE/a", "without file://"),
    ("/a://b", "with :// in no other place"),
    ("s3://a/b", "Mount it with mountpoint-s3"),
]


@pytest.mark.parametrize(
    ("command", "flag", "path", "words"),
    [
        (command, flag, path, words)
        for command, flag in TAKE_PATHS
        # Nothing looks for data by a pattern.
        for path, words in IMPOSSIBLE + (WILD if flag != "data_dir" else [])
    ],
    ids=lambda value: ascii(value)[1:20] if isinstance(value, str) else value[0],
)
def test_a_path_that_no_run_can_live_in_is_refused_by_every_program(
    here, monkeypatch, capsys, command, flag, path, words
):
    monkeypatch.chdir(here)
    (here / "a[1]").mkdir()
    (here / "link").symlink_to("a[1]")
    (here / "loop").symlink_to("loop")
    before = sorted(map(str, here.rglob("*")))
    arguments = [word.replace("PATH", path).replace("HERE", str(here)) for word in command]
    error = refused(arguments, capsys)
    assert error.startswith(f"Error: {flag} must ") and words in error
    assert f"Received: {flag}=" in error and error.rstrip("\n").isprintable()
    assert sorted(map(str, here.rglob("*"))) == before


@pytest.mark.parametrize(
    "command",
    [
        [*DIGITS, "--run_dir="],
        [*DIGITS, "--data_dir="],
        [*EXPORT, "--output_dir="],
        ["export.py", "--model="],
        [*NEW_NETS, "--output_dir="],
        [*RUNS, "HERE/run", ""],
    ],
)
def test_a_variable_of_the_shell_that_is_not_set_does_not_stand_for_the_default(
    here, capsys, command
):
    error = refused([word.replace("HERE", str(here)) for word in command], capsys)
    assert "must not be empty" in error and (command[-1] or "RUN") in error
