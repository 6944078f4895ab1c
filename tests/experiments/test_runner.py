"""The runner, with processes that pretend to train; test_experiments_program has real ones."""

import dataclasses

import pytest
import synthetic_runs
from etils import epath

from keras_preact.experiments import results, runner
from keras_preact.experiments.budgets import budget
from keras_preact.experiments.experiment import Experiment, Trial
from keras_preact.experiments.paper import TABLES
from keras_preact.experiments.process import slots
from keras_preact.experiments.results import Ending
from keras_preact.support.lock import locked

NAMES = ("plain20", "plain32", "residual20")


@pytest.fixture
def experiment(tmp_path):
    table = synthetic_runs.of_rows(TABLES["degradation"], NAMES)
    return Experiment(table, budget("short"), (0, 1), epath.Path(tmp_path / "experiments"))


class FakeProcess:
    """A process that ends at once."""

    def __init__(self, trial, code, words, slot):
        self.trial, self.slot, self.log = trial, slot, "the log"
        self._code, self._words = code, words

    def ended(self):
        return self._code

    def ask_to_stop(self):
        self._code = 129

    def wait(self):
        return self._code

    def last_line(self):
        return self._words

    last_words = last_line


class Starts:
    """Starts processes that end as `outcomes` say by (row, seed); by default they finish.

    An outcome is (exit code, last words), or None for a process that goes on.
    """

    def __init__(self, experiment, outcomes=None):
        self._experiment, self._outcomes = experiment, outcomes or {}
        self.trials, self.slots, self.at_once, self.minutes = [], [], 0, []

    def __call__(self, trial, arguments, log, slot):
        self.trials.append((trial.row.name, trial.seed))
        self.slots.append(slot)
        self.minutes.append([a for a in arguments if a.startswith("--max_runtime_minutes")])
        code, words = self._outcomes.get((trial.row.name, trial.seed), (0, "")) or (None, "")
        if code == 0:
            synthetic_runs.run(self._experiment, trial, 0.1)
        return FakeProcess(trial, code, words, slot)


def run(experiment, starts, trials=None, **limits):
    lines = []
    made = runner.Runner(
        experiment,
        list(experiment.trials()) if trials is None else trials,
        runner.Limits(**limits),
        lines.append,
        start=starts,
    )
    try:
        made.run()
    finally:
        made.lines = lines
    return made


def state(experiment, name, seed):
    trial = Trial(experiment.table.row(name), seed)
    return results.of_run(experiment.run_dir(trial), seed)


def test_every_row_runs_with_the_first_seed_before_the_second(experiment):
    starts = Starts(experiment)
    made = run(experiment, starts)
    assert starts.trials == [(name, seed) for seed in (0, 1) for name in NAMES]
    assert made.summary() == "6 runs: 6 finished"
    assert "plain20, seed 0: test error 10.00%" in made.lines


def test_finished_and_diverged_runs_are_not_run_again(experiment):
    trials = list(experiment.trials())
    synthetic_runs.run(experiment, trials[0], 0.2)
    results.write_ending(experiment.run_dir(trials[1]), Ending("diverged", 4, "nan at step 3"))
    starts = Starts(experiment)
    made = run(experiment, starts)
    assert len(starts.trials) == 4
    assert made.summary() == "6 runs: 1 finished before, 1 diverged before, 4 finished"


def test_a_broken_run_goes_on_and_a_failed_one_is_tried_again(experiment):
    first, second, *_ = experiment.trials()
    synthetic_runs.run(experiment, first, 0.2, part=0.4)
    results.write_ending(experiment.run_dir(second), Ending("failed", 1, "no memory"))
    made = run(experiment, Starts(experiment))
    assert any(line.startswith("plain20, seed 0: goes on.") for line in made.lines)
    assert state(experiment, "plain32", 0).state == "finished"
    assert results.read_ending(experiment.run_dir(second)) is None


def test_a_diverged_run_is_a_result_and_a_failed_one_an_error_after_the_others(experiment):
    outcomes = {
        ("plain20", 0): (4, "The loss was nan at step 7."),
        ("plain32", 0): (1, "Memory ran out"),
        ("plain32", 1): (-9, "step 50 of 100"),
    }
    with pytest.raises(runner.RunsFailedError, match="6 runs: 1 diverged, 2 failed, 3 finished"):
        run(experiment, Starts(experiment, outcomes))
    assert state(experiment, "plain20", 0).state == "diverged"
    assert state(experiment, "plain20", 0).message == "The loss was nan at step 7."
    assert state(experiment, "plain32", 0).message == "Memory ran out"
    killed = state(experiment, "plain32", 1)
    assert killed.state == "failed"
    assert killed.message.startswith("killed by signal 9, as systems do when memory runs out")


def test_two_runs_that_fail_alike_end_the_experiment_at_once(experiment):
    starts = Starts(experiment, {(name, 0): (2, "no such data") for name in NAMES})
    with pytest.raises(runner.RunsFailedError, match=r"Two runs failed alike.*no such data"):
        run(experiment, starts)
    assert len(starts.trials) == 2


def test_a_run_that_another_process_has_is_left_to_it(experiment):
    first, *_ = experiment.trials()
    run_dir = experiment.run_dir(first)
    starts = Starts(experiment)
    with locked(run_dir.parent / f"{run_dir.name}.claim", "output_dir"):
        made = run(experiment, starts)
    assert ("plain20", 0) not in starts.trials
    assert made.counts["taken by other processes"] == 1
    # A train.py without a runner has the folder of the run itself.
    outcomes = {("plain20", 0): (2, f"{run_dir} is in use by process 7")}
    made = run(experiment, Starts(experiment, outcomes))
    assert made.counts["taken by other processes"] == 1


def test_no_claim_is_left_behind(experiment):
    run(experiment, Starts(experiment))
    assert not list(experiment.folder.glob("runs/*/*.claim"))


def test_parallel_runs_divide_the_machine(experiment):
    starts = Starts(experiment)
    run(experiment, starts, parallel_runs=2)
    assert set(starts.slots) <= set(slots(2))
    cores = [slot.cores for slot in slots(2) if slot.cores]
    assert not cores or not frozenset.intersection(*cores)


def test_each_gpu_gets_a_run(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,5")
    assert [slot.gpu for slot in slots(3)] == ["2", "5", "2"]
    assert slots(1)[0].gpu is None


def test_runs_that_are_stopped_from_outside_are_told_and_go_on_with_the_next_call(experiment):
    outcomes = {("plain20", 0): (143, "Stopped: SIGTERM, after step 7")}
    with pytest.raises(runner.TimeIsUpError, match="1 stopped, 5 finished") as error:
        run(experiment, Starts(experiment, outcomes))
    assert error.value.exit_code == 75
    assert state(experiment, "plain20", 0).state == "missing"


def test_the_time_limit_ends_the_experiment_and_goes_to_the_runs(experiment):
    starts = Starts(experiment)
    with pytest.raises(runner.TimeIsUpError, match="not begun"):
        run(experiment, starts, minutes=1e-12)
    assert not starts.trials
    run(experiment, starts, minutes=60)
    [[first], *_] = starts.minutes
    assert 59 < float(first.partition("=")[2]) <= 60


def test_an_interrupted_runner_asks_its_runs_to_stop(experiment):
    outcomes = {("plain20", 0): None}
    starts = Starts(experiment, outcomes)

    class Interrupts(runner.Runner):
        def _take_ended(self):
            raise KeyboardInterrupt

    made = Interrupts(
        experiment, list(experiment.trials()), runner.Limits(), lambda line: None, start=starts
    )
    with pytest.raises(KeyboardInterrupt):
        made.run()
    assert len(starts.trials) == 1
    assert not list(experiment.folder.glob("runs/*/*.claim"))


def test_a_damaged_run_is_handed_to_train_which_names_the_damage(experiment):
    first, *_ = experiment.trials()
    folder = synthetic_runs.run(experiment, first, 0.2)
    folder.metrics.write_text("step\nx\n")
    starts = Starts(experiment, {("plain20", 0): (2, "metrics.csv is damaged")})
    with pytest.raises(runner.RunsFailedError):
        run(experiment, starts)
    assert ("plain20", 0) in starts.trials


def test_results_tell_test_splits_from_evaluations(experiment):
    first, second, *_ = experiment.trials()
    synthetic_runs.run(experiment, first, 0.25)
    found = state(experiment, "plain20", 0)
    assert (found.state, found.test_images) == ("finished", 10_000)
    assert found.test_error == pytest.approx(0.25)
    folder = synthetic_runs.run(experiment, second, 0.25, test_count=10_000)
    # The validation error is not the test error.
    assert state(experiment, "plain32", 0).state == "unfinished"
    steps = state(experiment, "plain32", 0).steps
    folder.test.write_text(
        f'{{"step": {steps}, "end_step": {steps}, "checkpoint": "newest", "images": 10000, '
        '"line": "", "scores": {"accuracy": 0.7, "top5_accuracy": 0.9}}'
    )
    found = state(experiment, "plain32", 0)
    assert (found.state, found.test_images) == ("finished", 10_000)
    assert found.test_error == pytest.approx(0.3)
    assert found.test_top5_error == pytest.approx(0.1)


def test_seeds_of_one_row_of_two_names_run_once(experiment):
    row = experiment.table.rows[0]
    twin = dataclasses.replace(row, name="twin")
    table = dataclasses.replace(experiment.table, rows=(row, twin), claims=())
    both = dataclasses.replace(experiment, table=table)
    starts = Starts(both)
    made = run(both, starts)
    assert len(starts.trials) == 2
    assert made.counts["finished before"] == 2
