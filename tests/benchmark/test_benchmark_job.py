import dataclasses
import importlib.util
import json

import pytest

from keras_preact.benchmark.config import BenchmarkConfig
from keras_preact.benchmark.job import Job, make_jobs, make_net


def test_the_frameworks_of_one_model_precision_and_mode_follow_each_other():
    config = BenchmarkConfig(
        models=(20, 18),
        precisions=("float32", "mixed_bfloat16"),
        frameworks=("keras_preact", "keras"),
        modes=("train",),
    )
    measured = [
        [(job.net.name, job.precision, job.framework) for job in jobs] for jobs in make_jobs(config)
    ]
    assert measured == [
        [(model, precision, "keras_preact"), (model, precision, "keras")]
        for model in ("resnet20", "resnet18")
        for precision in ("float32", "mixed_bfloat16")
    ]


@pytest.mark.parametrize("on_gpu", [False, True])
def test_cifar_and_imagenet_nets_have_sizes_of_their_own_unless_given(on_gpu):
    def sizes(**options):
        config = BenchmarkConfig(models=(20, 18), precisions=("float32",), **options)
        groups = make_jobs(config, on_gpu)[::2]
        return [(job.batch_size, job.image_size, job.net.classes) for job, *_ in groups]

    assert sizes() == [(128, 32, 10), (256 if on_gpu else 16, 224, 1000)]
    assert sizes(batch_size=4, image_size=8) == [(4, 8, 10), (4, 8, 1000)]


def test_overhead_is_measured_on_one_small_image_unless_given_in_our_framework_alone():
    def sizes(**options):
        config = BenchmarkConfig(models=(20, 18), modes=("overhead",), **options)
        [first, _, third, _] = make_jobs(config, on_gpu=True)
        return [(job.batch_size, job.image_size, job.framework) for job in (*first, *third)]

    assert sizes() == [(1, 8, "keras_preact"), (1, 32, "keras_preact")]
    assert sizes(batch_size=4, image_size=16) == [(4, 16, "keras_preact")] * 2


def convolutions(unit):
    """(filters, kernel size, strides) of each."""
    return [(op.filters, op.kernel_size, op.strides) for op in unit.residual if op.kind == "conv"]


def test_a_bottleneck_unit_is_spelled_out_as_in_the_paper():
    # "Identity Mappings in Deep Residual Networks", appendix; the stride on the first 1x1.
    first, second, *_ = make_net(11).units
    assert convolutions(first) == [(16, 1, 1), (16, 3, 1), (64, 1, 1)]
    assert convolutions(second) == [(32, 1, 2), (32, 3, 1), (128, 1, 1)]
    for unit in (first, second):
        assert [op.kind for op in unit.projection] == ["conv"]
        assert unit.shares_preactivation


def test_basic_cifar_units_pad_where_they_widen_and_share_the_first_preactivation_alone():
    units = make_net(14).units
    projections = [[op.kind for op in unit.projection] for unit in units]
    assert projections == [[], [], ["zero_pad"], [], ["zero_pad"], []]
    assert [unit.shares_preactivation for unit in units] == [True, False] * 3


@pytest.mark.parametrize(("mode", "factor"), [("inference", 1), ("train", 3)])
def test_the_arithmetic_is_twice_the_multiply_adds_and_training_does_it_three_times(mode, factor):
    job = Job("keras", mode, "float32", make_net(8), batch_size=1, image_size=4, steps=1)
    # ResNet-8 by hand on 4 x 4 pixels: stem; a unit at 4 x 4; two at 2 x 2 and 1 x 1.
    multiply_adds = (
        16 * 9 * 3 * 16
        + 16 * 9 * (16 * 16 + 16 * 16)
        + 4 * 9 * (16 * 32 + 32 * 32)
        + 1 * 9 * (32 * 64 + 64 * 64)
        + 64 * 10
    )
    assert job.operations_per_image == 2 * factor * multiply_adds


def test_resnet_50_takes_the_4_1_billion_multiply_adds_that_are_published():
    job = Job("keras", "inference", "float32", make_net(50), 1, 224, 1)
    assert round(job.operations_per_image / 2e9, 1) == 4.1


def test_a_job_survives_json():
    job = Job("torch", "train", "float32", make_net(8), 2, 8, 1)
    fields = json.loads(json.dumps(dataclasses.asdict(job)))
    operations = [op["name"] for op in fields["net"]["units"][1]["residual"]]
    assert operations == ["conv1", "bn2", "relu", "conv2"]


def test_exports_are_measured_where_there_are_any(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda module: module)
    config = BenchmarkConfig(
        models=(20,), modes=("serving", "inference"), frameworks=("keras_preact", "torch_compile")
    )
    jobs = [job for group in make_jobs(config) for job in group]
    measured = [(job.mode, job.precision, job.framework) for job in jobs]
    assert measured == [
        ("serving", "float32", "keras_preact"),
        ("inference", "float32", "keras_preact"),
        ("inference", "float32", "torch_compile"),
        ("serving", "mixed_bfloat16", "keras_preact"),
        ("inference", "mixed_bfloat16", "keras_preact"),
        ("inference", "mixed_bfloat16", "torch_compile"),
    ]


def test_a_server_is_sent_single_images(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda module: module)
    options = {"modes": ("server",), "server": "/bin/true", "precisions": ("mixed_float16",)}
    config = BenchmarkConfig(models=(20, 50), **options)
    jobs = [job for group in make_jobs(config) for job in group]
    assert {(job.precision, job.batch_size) for job in jobs} == {("mixed_float16", 1)}
    assert [(job.net.depth, job.image_size, job.framework) for job in jobs] == [
        (20, 32, "keras_preact"),
        (20, 32, "keras"),
        (50, 224, "keras_preact"),
        (50, 224, "keras"),
    ]
