"""The files of a run beside its checkpoints, and runs resumed with other flags."""

import json

import numpy as np
import pytest
import tensorflow as tf
from small_runs import events
from small_runs import small as larger

from keras_preact import exporting
from keras_preact.training import run
from keras_preact.training.reporting import metrics_file


def small(folder, **changes):
    return larger(folder, **{"global_batch_size": 64, **changes})


def test_tensorboard_shows_the_course_of_training_and_the_compute_plan_is_printed(tmp_path, capsys):
    run(small(tmp_path))
    train = events(tmp_path, "train")
    assert set(train.Tags()["tensors"]) == {
        *("loss", "accuracy", "learning_rate", "images_per_second", "input_wait_share"),
        *("gradient_norm", "weight_norm", "loss_scale", "augmented_images"),
    }
    rates = [
        (e.step, float(tf.make_ndarray(e.tensor_proto))) for e in train.Tensors("learning_rate")
    ]
    assert rates == [(2, pytest.approx(0.01)), (4, pytest.approx(0.1)), (6, pytest.approx(0.1))]
    shares = [float(tf.make_ndarray(e.tensor_proto)) for e in train.Tensors("input_wait_share")]
    assert all(0 <= share <= 1 for share in shares)
    evaluation = events(tmp_path, "eval")
    figures = {"loss", "accuracy", "top5_accuracy", "macro_f1"}
    assert {*figures, "confusion", "class_accuracy"} == set(evaluation.Tags()["tensors"])
    [text] = evaluation.Tensors("class_accuracy")
    _, _, *rows = text.tensor_proto.string_val[0].decode().splitlines()
    assert sum(int(row.split("|")[3]) for row in rows) == 360
    lines = capsys.readouterr().out.splitlines()
    assert "Strategy one_device on CPU:0: one device" in lines
    assert "XLA off: CPU; measured slower than TensorFlow's own kernels" in lines


@pytest.mark.usefixtures("without_pictures")
@pytest.mark.slow
def test_everything_at_once_on_two_replicas_is_trained_resumed_evaluated_and_exported(tmp_path):
    options = {
        "devices": "CPU:0,CPU:1",
        "sync_bn": True,
        "precision": "mixed_bfloat16",
        "steps_per_loop": 2,
        "gradient_accumulation_steps": 2,
        "ema_decay": 0.8,
        "label_smoothing": 0.1,
        "mixup_alpha": 0.2,
        "stochastic_depth_rate": 0.2,
        "recompute_bn_batches": 3,
        "shortcut": "dropout",
    }
    run(small(tmp_path, train_steps=3, schedule_steps=6, **options))
    trained = run(small(tmp_path, train_steps=6, schedule_steps=6, resume=True, **options))
    assert [row.step for row in metrics_file.read(tmp_path / "metrics.csv")] == [3, 6]
    config = small(tmp_path, schedule_steps=6, **options)
    evaluated = run(config.updated(mode="evaluate", devices="1"))
    np.testing.assert_allclose(evaluated.loss, trained.loss, rtol=0.02)
    in_float32 = run(config.updated(mode="evaluate", devices="1", precision="float32"))
    np.testing.assert_allclose(in_float32.loss, trained.loss, rtol=0.02)
    version = exporting.run(exporting.ExportConfig(run_dir=str(tmp_path)))
    assert (version / "saved_model.pb").exists()


@pytest.mark.usefixtures("without_pictures")
def test_a_run_in_bfloat16_continues_in_float32_with_a_profile(tmp_path):
    run(small(tmp_path, train_steps=2, schedule_steps=6, precision="mixed_bfloat16"))
    changes = {"train_steps": 4, "precision": "float32", "profile_steps": (3, 4)}
    run(small(tmp_path, schedule_steps=6, resume=True, **changes))
    assert [row.step for row in metrics_file.read(tmp_path / "metrics.csv")] == [2, 4]
    record = json.loads((tmp_path / "config.json").read_text())
    assert record["decision"]["precision"] == "float32"
    assert record["decision"]["reasons"]["precision"] == "as given"
    first, second = record["history"]
    assert (first["step"], second["step"]) == (0, 2)
    assert second["changes"] == {
        "train_steps": [2, 4],
        "precision": ["mixed_bfloat16", "float32"],
        "profile_steps": [None, [3, 4]],
    }
    assert len(list((tmp_path / "tensorboard").rglob("*.xplane.pb"))) == 1


@pytest.mark.usefixtures("without_pictures")
def test_averaged_weights_are_evaluated(tmp_path):
    averaged = run(small(tmp_path / "averaged", ema_decay=0.99))
    plain = run(small(tmp_path / "plain"))
    assert abs(averaged.loss - plain.loss) > 1e-3
    config = small(tmp_path / "averaged", ema_decay=0.99)
    for which in ("newest", "best"):
        evaluated = run(config.updated(mode="evaluate", checkpoint=which))
        assert evaluated.loss == pytest.approx(averaged.loss, rel=1e-4)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"strategy": "multi_worker"}, "TF_CONFIG"),
        ({"strategy": "mirrored"}, "--devices=CPU:0,CPU:1"),
        ({"devices": "CPU:0,CPU:1", "global_batch_size": 63}, "62 or 64"),
        ({"devices": "CPU:0,CPU:1", "sync_bn": True, "xla": "on"}, "Give one"),
        ({"devices": "GPU:7"}, "devices must be"),
    ],
)
def test_impossible_wishes_fail_before_anything_is_written(tmp_path, changes, words):
    with pytest.raises(ValueError, match=words):
        run(small(tmp_path / "run", **changes))
    assert not (tmp_path / "run").exists()


@pytest.mark.usefixtures("without_pictures")
def test_the_time_of_a_run_goes_on_where_it_is_resumed(tmp_path):
    config = small(tmp_path, schedule_steps=6)
    run(config.updated(train_steps=2))
    path = tmp_path / "metrics.csv"
    [row] = metrics_file.read(path)
    path.write_text(path.read_text().replace(f"{row.elapsed_seconds:.6g}", "5000"))
    run(config.updated(train_steps=4, resume=True))
    first, second = metrics_file.read(path)
    assert first.elapsed_seconds == 5000
    assert 5000 < second.elapsed_seconds < 5600
