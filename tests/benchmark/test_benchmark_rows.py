import statistics

import pytest

from keras_preact.benchmark.job import Job, make_net
from keras_preact.benchmark.rows import make_rows


def answer(images_per_second, first_step_seconds=1.0, mebibytes=100.0, gpu_mebibytes=None):
    return {
        "images_per_second": images_per_second,
        "first_step_seconds": first_step_seconds,
        "peak_memory_mebibytes": mebibytes,
        "device": "CPU" if gpu_mebibytes is None else "a GPU",
        "device_memory_mebibytes": gpu_mebibytes,
    }


def rows_of(results, peak_teraflops=1.0, mode="train"):
    net = make_net(8)
    jobs = [Job(framework, mode, "float32", net, 4, 8, 2) for framework in results]
    return make_rows(jobs, results, peak_teraflops)


def test_figures_are_medians_with_their_extremes():
    speeds, seconds, memory = (9.0, 1.0, 4.0, 3.0), (5.0, 2.0, 1.0, 2.5), (10.0, 30.0, 20.0, 5.0)
    [row] = rows_of({"keras": list(map(answer, speeds, seconds, memory))})
    assert row.images_per_second == statistics.median(speeds) == 3.5
    assert (row.lowest_images_per_second, row.highest_images_per_second) == (1.0, 9.0)
    assert row.first_step_seconds == 2.25
    assert row.peak_memory_mebibytes == 15.0
    assert row.rounds == 4


def test_the_ratio_says_how_many_times_as_fast_keras_preact_is():
    rows = rows_of(
        {
            "keras_preact": [answer(30.0)],
            "keras": [answer(20.0)],
            "torch": [answer(40.0)],
        }
    )
    assert [row.keras_preact_times for row in rows] == [1.0, 1.5, 0.75]


def test_without_keras_preact_there_is_no_ratio():
    [row] = rows_of({"keras": [answer(20.0)]})
    assert row.keras_preact_times is None


@pytest.mark.parametrize(("mode", "factor"), [("inference", 2), ("train", 6)])
def test_the_share_of_the_peak_follows_from_speed_and_arithmetic(mode, factor):
    # ResNet-8 on 8 x 8 pixels takes four times its convolutions on 4 x 4.
    multiply_adds = 64 * 9 * (3 * 16 + 2 * 16**2) + 16 * 9 * (16 * 32 + 32**2)
    multiply_adds += 4 * 9 * (32 * 64 + 64**2) + 640
    [row] = rows_of({"keras": [answer(1000.0)]}, peak_teraflops=0.5, mode=mode)
    assert row.gigaflops_per_image == pytest.approx(factor * multiply_adds / 1e9)
    assert row.share_of_peak == pytest.approx(1000 * factor * multiply_adds / 0.5e12)


def test_a_failed_row_has_the_error_in_place_of_figures():
    failed, fine = rows_of({"keras_preact": [{"error": "no"}], "keras": [answer(20.0)]})
    assert failed.error == "no" and failed.rounds == 0 and failed.device is None
    assert failed.images_per_second is None and failed.share_of_peak is None
    assert fine.images_per_second == 20.0 and fine.error is None


def test_the_steps_are_the_fewest_that_were_timed():
    first, second = {**answer(20.0), "steps": 70}, {**answer(20.0), "steps": 60}
    assert [row.steps for row in rows_of({"keras": [first, second]})] == [60]
    [failed] = rows_of({"keras": [{"error": "no"}]})
    assert failed.steps == 2  # as asked for


def test_memory_of_the_gpu_is_kept_apart():
    [row] = rows_of({"keras": [answer(20.0, gpu_mebibytes=7.0), answer(20.0, gpu_mebibytes=9.0)]})
    assert (row.device, row.device_memory_mebibytes) == ("a GPU", 8.0)
    assert row.peak_memory_mebibytes == 100.0
