"""Mode scaling: its jobs, its rows and what follows from them, its table, picture and CSV."""

import csv
import dataclasses
import importlib.util
import io
import json
import pathlib
import subprocess
import sys

import pytest

from keras_preact.benchmark import measure, output, runner
from keras_preact.benchmark.config import BenchmarkConfig
from keras_preact.benchmark.job import make_net, make_scaling_jobs
from keras_preact.benchmark.rows import csv_bytes
from keras_preact.benchmark.scaling import plot
from keras_preact.benchmark.scaling.run import ScalingRow, make_row, run
from keras_preact.models.training_memory import RUNTIME_BYTES


@pytest.fixture
def all_installed(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda module: module)


@pytest.fixture
def make_config(tmp_path):
    def make(**options):
        defaults = {
            "modes": ("scaling",),
            "models": (20, 164),
            "frameworks": ("keras_preact", "keras"),
            "rounds": 1,
            "csv": str(tmp_path / "figures.csv"),
            "plot": str(tmp_path / "picture.png"),
        }
        return BenchmarkConfig(**{**defaults, **options})

    return make


def answer(build=2.0, first=10.0, speed=16.0, before=500.0, peak=1500.0, gpu=None):
    return {
        "images_per_second": speed,
        "steps": 3,
        "build_seconds": build,
        "first_step_seconds": build + first,
        "memory_before_mebibytes": before,
        "peak_memory_mebibytes": peak,
        "device": "CPU" if gpu is None else "a GPU",
        "device_memory_mebibytes": gpu,
    }


def measured(config, answers):
    """Runs with answers by (depth, framework, remat), recording what is started."""
    started = []

    def start(script, job):
        key = job["net"]["depth"], job["framework"], job["remat"]
        started.append((script, *key))
        return answers.get(key, answer())

    return run(config, lambda line: None, start), started


def test_the_default_depths_are_of_two_blocks_and_a_depth_may_name_its_block(all_installed):
    groups = make_scaling_jobs(BenchmarkConfig(modes=("scaling",), frameworks=("keras",)))
    assert [(job.net.depth, job.net.block, len(job.net.units)) for [job] in groups] == [
        (20, "basic", 9),
        (110, "basic", 54),
        (164, "bottleneck", 54),
        # Fits the formulas of both.
        (326, "bottleneck", 108),
        (1001, "bottleneck", 333),
        (1202, "basic", 600),
    ]
    assert {job.mode for [job] in groups} == {"train"}
    config = BenchmarkConfig(
        modes=("scaling",), models=(56, 20), block="bottleneck", frameworks=("keras",)
    )
    groups = make_scaling_jobs(config)
    assert [(job.net.depth, job.net.block) for [job] in groups] == [
        (20, "bottleneck"),
        (56, "bottleneck"),
    ]


def test_each_way_to_recompute_is_a_job_and_pytorch_recomputes_units(all_installed):
    config = BenchmarkConfig(modes=("scaling",), models=(20,), remat=("none", "unit", "auto"))
    [jobs] = make_scaling_jobs(config)
    assert [job.label for job in jobs] == [
        "keras_preact",
        "keras_preact remat=unit",
        "keras_preact remat=auto",
        "keras",
        "torch",
        "torch remat=unit",
    ]
    assert {(job.batch_size, job.precision, job.least_steps) for job in jobs} == {
        (32, "float32", 3)
    }
    [jobs] = make_scaling_jobs(
        BenchmarkConfig(modes=("scaling",), models=(20,), xla="on", unit_loops="off")
    )
    assert [(job.label, job.xla, job.unit_loops) for job in jobs] == [
        ("keras_preact", "on", "off"),
        ("keras", "auto", "auto"),
        ("torch", "auto", "auto"),
    ]


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"modes": ("scaling", "train")}, "scaling alone .* Received: modes=scaling,train"),
        ({"modes": ("train",), "remat": ("none", "auto")}, "several. Received: remat=none,auto"),
        ({"remat": ("auto",), "unit_loops": "off"}, "remat=auto, unit_loops=off"),
        ({"remat": ("group",)}, "none, unit, auto.*Received: remat='group'"),
        ({"frameworks": ("torch_compile",)}, "keras_preact, keras or torch: .*torch_compile"),
        ({"most_minutes": 0}, "most_minutes must be at least 1"),
        ({"models": (326,), "modes": ("train",)}, "depth=326 needs block=.* or block='bottleneck'"),
        ({"models": (1202,), "block": "bottleneck"}, "depth=1202 with block='bottleneck'"),
    ],
    ids=lambda value: list(value)[-1] if isinstance(value, dict) else "",
)
def test_wrong_values_are_refused(all_installed, make_config, wrong, words):
    with pytest.raises(ValueError, match=words):
        make_config(**wrong)


def test_the_seconds_are_split_and_divided_by_the_layers(make_config):
    outcome, started = measured(make_config(models=(164,)), {})
    assert [(script, key) for script, *_, key in started] == [
        ("measure.py", "none"),
        ("measure.py", "auto"),
        ("measure.py", "none"),
    ]
    row = outcome.rows[0]
    # 32 images at 16 a second.
    assert row.step_milliseconds == 2000
    assert (row.build_seconds, row.first_step_seconds, row.start_seconds) == (2, 10, 12)
    assert row.compile_seconds == 10 - 2
    assert row.layer_microseconds == pytest.approx(2e6 / 164)
    assert row.step_memory_mebibytes == 1000
    assert row.layer_memory_mebibytes == pytest.approx(1000 / 164)
    assert (row.depth, row.block, row.units, row.error) == (164, "bottleneck", 54, None)
    ours, recomputing, stock = outcome.rows
    assert ours.formula_mebibytes > recomputing.formula_mebibytes > 0
    assert stock.formula_mebibytes is None and stock.xla is None


def test_figures_are_medians_over_the_rounds(make_config):
    [[job, *_]] = make_scaling_jobs(make_config(models=(20,)))
    row = make_row(job, [answer(build=1), answer(build=3), answer(build=9)])
    assert (row.build_seconds, row.start_seconds, row.rounds) == (3, 13, 3)


def test_memory_on_a_gpu_is_what_the_framework_allocated_there(make_config):
    [[job, *_]] = make_scaling_jobs(make_config(models=(20,)))
    row = make_row(job, [answer(gpu=400.0)])
    assert row.step_memory_mebibytes == 400
    # The weights lie there as well.
    assert row.formula_mebibytes == job.describe().training_memory(32).total / 2**20
    # There is no XLA on a CPU, and no loops over so few units.
    on_cpu = job.describe().training_memory(32, loops=False).in_step + RUNTIME_BYTES
    assert make_row(job, [answer()]).formula_mebibytes == on_cpu / 2**20


def test_what_fails_is_not_tried_at_greater_depths_and_leaves_the_others_alone(make_config):
    config = make_config(models=(20, 164, 326), rounds=2)
    failed = {(164, "keras", "none"): {"error": "killed"}}
    outcome, started = measured(config, failed)
    assert started.count(("measure.py", 164, "keras", "none")) == 1
    assert ("measure.py", 326, "keras", "none") not in started
    errors = {row.depth: row.error for row in outcome.rows if row.framework == "keras"}
    assert errors == {20: None, 164: "killed", 326: "not tried, as it failed at 164 layers"}
    assert all(row.rounds == 2 for row in outcome.rows if row.framework == "keras_preact")
    text = output.text(outcome, config)
    assert "failed: killed" in text and "failed: not tried" in text
    plot.png(outcome.rows, "a machine")


def test_a_process_that_takes_too_long_is_stopped(tmp_path):
    script = tmp_path / "script.py"
    script.write_text("import time\ntime.sleep(100)\n")
    stopped = runner.start_script(script, {}, most_minutes=0.01)
    assert stopped == {"error": "stopped after 0.01 minutes, see --most_minutes"}


SOME = {
    (164, "keras_preact", "none"): answer(build=1, first=9, speed=32, peak=1000),
    (164, "keras_preact", "auto"): answer(build=1, first=8, speed=25, peak=600),
    (164, "keras", "none"): answer(build=2, first=38, speed=16, peak=2000),
    (1001, "keras_preact", "none"): answer(build=4, first=16, speed=8, peak=4000),
    (1001, "keras_preact", "auto"): answer(build=4, first=14, speed=6, peak=900),
    (1001, "keras", "none"): answer(build=10, first=150, speed=4, peak=8000),
}


def line(text, *words):
    """The one line of a text with these words, its blanks single."""
    found = [" ".join(line.split()) for line in text.splitlines()]
    [only] = [line for line in found if all(word in line for word in words)]
    return only


def test_growth_and_ratios_follow_from_the_rows_of_the_run(make_config):
    config = make_config(models=(164, 1001))
    outcome, _ = measured(config, SOME)
    text = output.text(outcome, config)
    assert max(map(len, text.splitlines())) <= output.WIDTH
    assert "164 layers, 54 bottleneck units, float32, batches of 32 images of 32 x 32 pix" in text
    # Depth, build, compile, start, step, memory.
    grown = line(text, "keras_preact float32, bottleneck 164 to 1001")
    assert grown.endswith("1001 6.10 4.00 1.50 2.00 4.00 4.00")
    assert line(text, "keras_preact auto float32, bottleneck 164 to 1001")
    # Start, images/s, memory.
    _, _, after = text.partition("Ratios to keras")
    assert line(after.partition("Memory of")[0], "1001 float32: keras_preact auto").endswith(
        "auto 0.11 1.50 0.11"
    )
    assert "Ratios to torch" not in text


def test_all_lines_fit_with_gpus_and_large_figures(make_config):
    config = make_config(models=(1001,), precisions=("mixed_bfloat16",))
    large = answer(99.9, 999.9, 0.333, 12345.0, 99999.0, gpu=99999.0)
    keys = [(1001, "keras_preact", "none"), (1001, "keras_preact", "auto"), (1001, "keras", "none")]
    outcome, _ = measured(config, dict.fromkeys(keys, large))
    assert max(map(len, output.text(outcome, config).splitlines())) <= output.WIDTH
    assert "a layer" in (head := output.text(outcome, config).splitlines()[2])
    assert "GPU" in head and "memory" not in head


def test_the_files_of_an_earlier_benchmark_are_replaced(make_config, capsys):
    config = make_config(models=(164, 1001))
    outcome, _ = measured(config, SOME)
    output.check(config)
    output.hand_over(outcome, config)
    assert "Written: " in capsys.readouterr().out
    output.check(config)
    written = config.csv_path.read_bytes()
    assert written == csv_bytes(outcome.rows, ScalingRow)
    first, *_ = csv.DictReader(io.StringIO(written.decode()))
    assert first["layer_microseconds"] == str(outcome.rows[0].layer_microseconds)
    assert config.plot_path.read_bytes() == plot.png(outcome.rows, output.machine_line(outcome))


def test_the_picture_has_lines_for_each_framework_precision_and_block(make_config):
    outcome, _ = measured(make_config(models=(20, 164, 1001)), SOME)
    rows = outcome.rows
    rows += [dataclasses.replace(row, precision="mixed_bfloat16") for row in rows]
    picture = plot.png.__wrapped__(rows, "a machine with $ in its name")
    [legend] = picture.legends
    labels = [text.get_text() for text in legend.get_texts()]
    assert len(labels) == len(set(labels)) == 12
    assert "keras_preact remat=auto, mixed_bfloat16, bottleneck" in labels
    assert [len(axes.get_lines()) for axes in picture.axes] == [12] * 4
    assert [axes.get_ylabel() for axes in picture.axes] == [
        *("seconds", "seconds", "milliseconds", "GiB"),
    ]


GRADIENTS = """
import json, runpy, sys, types, torch

net = json.load(sys.stdin, object_hook=lambda fields: types.SimpleNamespace(**fields))
module, gradients = runpy.run_path(sys.argv[1]), []
images = torch.randn(2, 3, 8, 8)
for remat in ("none", "unit"):
    torch.manual_seed(0)
    model = module["ResNetV2"](net, remat)
    model(images).square().sum().backward()
    gradients.append([parameter.grad for parameter in model.parameters()])
for one, other in zip(*gradients, strict=True):
    torch.testing.assert_close(one, other)
assert any(gradient.abs().max() > 0 for gradient in gradients[0])
"""


def test_pytorch_recomputes_units_to_the_same_gradients():
    pytest.importorskip("torch")
    # Without TensorFlow in the process, whose threads PyTorch's backward pass does not stand.
    done = subprocess.run(
        [sys.executable, "-c", GRADIENTS, pathlib.Path(measure.__file__).with_name("pytorch.py")],
        input=json.dumps(dataclasses.asdict(make_net(11))),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_a_tiny_benchmark_prints_the_table_and_writes_its_files(tmp_path):
    figures, picture = tmp_path / "figures.csv", tmp_path / "picture.png"
    done = subprocess.run(
        [
            *(sys.executable, "-m", "keras_preact.benchmark", "--modes=scaling"),
            *("--models=8,14", "--frameworks=keras_preact,keras", "--image_size=8"),
            *("--batch_size=4", "--rounds=1", "--steps=2", f"--csv={figures}", f"--plot={picture}"),
        ],
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    rows = list(csv.DictReader(figures.read_text().splitlines()))
    assert [(row["depth"], row["framework"], row["remat"]) for row in rows] == [
        (depth, *program)
        for depth in ("8", "14")
        for program in (("keras_preact", "none"), ("keras_preact", "auto"), ("keras", "none"))
    ]
    for row in rows:
        assert row["error"] == ""
        parts = float(row["build_seconds"]) + float(row["first_step_seconds"])
        assert float(row["start_seconds"]) == pytest.approx(parts)
        assert 0 < float(row["build_seconds"]) < float(row["start_seconds"])
        assert 0 < float(row["memory_before_mebibytes"]) < float(row["peak_memory_mebibytes"])
    assert "basic 8 to 14" in done.stdout and "Ratios to keras" in done.stdout
    assert picture.read_bytes().startswith(b"\x89PNG")
