"""Runs that end before their last step, as no evaluation was better for too long."""

import pytest
from same_runs import assert_same_runs
from small_runs import AtStep

from keras_preact.training import TrainConfig, run
from keras_preact.training.reporting import metrics_file

# An evaluation every three steps. Nothing that it sees is changed by training.
STILL = TrainConfig(
    dataset="digits",
    depth=8,
    width_multiplier=0.25,
    global_batch_size=480,
    train_steps=60,
    warmup_steps=0,
    learning_rate=1e-30,
    weight_decay=0.0,
    freeze_bn="all",
    checkpoint_steps=2,
    early_stopping_epochs=2,
)

pytestmark = pytest.mark.usefixtures("without_pictures")


class Killed(BaseException):
    """Ends the process in these tests."""


def steps(folder):
    return [row.step for row in metrics_file.read(folder / "metrics.csv")]


def test_a_run_stops_early_is_complete_and_goes_on_with_more_patience(tmp_path, capsys):
    config = STILL.updated(run_dir=str(tmp_path))
    evaluation = run(config)
    output = capsys.readouterr().out
    assert steps(tmp_path) == [3, 6, 9]
    best = f"the best, {evaluation.accuracy:.2%} at step 3, is kept as --checkpoint=best"
    reason = f"accuracy has not improved for 2 epochs; {best}"
    assert f"Stopped early after step 9: {reason}" in output
    assert "--checkpoint=best\n" in output[output.index("  export: ") :]
    assert [path.name for path in (tmp_path / "checkpoints" / "best").glob("step-*")] == ["step-3"]

    again = run(config.updated(resume=True))
    assert again.accuracy == evaluation.accuracy
    output = capsys.readouterr().out
    assert f"The run is complete: it stopped early after step 9: {reason}" in output
    assert steps(tmp_path) == [3, 6, 9]

    run(config.updated(resume=True, early_stopping_epochs=3))
    assert steps(tmp_path) == [3, 6, 9, 12]
    run(config.updated(resume=True, early_stopping_epochs=None, train_steps=13))
    assert steps(tmp_path) == [3, 6, 9, 12, 13]
    assert "Stopped early" not in capsys.readouterr().out.partition("step 13")[2]


@pytest.mark.slow
@pytest.mark.parametrize("step", [2, 8])
def test_a_killed_run_stops_where_the_whole_one_does(tmp_path, step):
    def kill():
        raise Killed

    run(STILL.updated(run_dir=str(tmp_path / "whole")))
    broken = STILL.updated(run_dir=str(tmp_path / "broken"), resume=True)
    with pytest.raises(Killed):
        run(broken, actions=[AtStep(step, kill)])
    run(broken)
    assert_same_runs(tmp_path / "whole", tmp_path / "broken")
