"""The steps at which actions are due, against a count of every image; and what actions do."""

import contextlib
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from small_runs import AtStep, small

from keras_preact.training import Action, DivergenceError, Interrupted, TrainConfig, run
from keras_preact.training.actions import Profile, RecordPropagation, standard_actions
from keras_preact.training.monitor import Monitor
from keras_preact.training.reporting import metrics_file
from keras_preact.training.run_in_progress import Run
from keras_preact.training.trainer import Trainer

examples = settings(max_examples=200, deadline=None)


class OnPaper:
    """A run that counts its steps and takes none."""

    next_evaluation, evaluates, epoch = Run.next_evaluation, Run.evaluates, Run.epoch
    stops_early, is_over = Run.stops_early, Run.is_over

    def __init__(self, config, train_steps, train_count, done=0):
        self.config, self.train_steps, self.done = config, train_steps, done
        info = SimpleNamespace(train_count=train_count)
        self.data = SimpleNamespace(info=info, test_source=None)
        self.monitor = Monitor("accuracy", config.early_stopping_epochs, self.epoch)
        self.writer = SimpleNamespace(finish=lambda done, monitor: None)
        self.devices = SimpleNamespace(writes=False)
        self.state = SimpleNamespace(in_network=contextlib.nullcontext)
        self.checkpoints = SimpleNamespace(wait=lambda: None)
        self.evaluated, self.has_unsaved_evaluation, self.evaluation = True, False, "the last"
        self.taken = []

    in_session = contextlib.nullcontext
    batches = restart_clocks = is_asked_to_stop = refuse_divergence = lambda self: None

    def take(self, batches, most):
        steps = min(most, self.config.steps_per_loop)
        assert steps >= 1
        self.taken.append((self.done, self.done + steps))
        self.done += steps


def course(on_paper, *own):
    """The steps after which each action ran, by the name of its class."""
    steps, before_and_after = {}, standard_actions(on_paper)
    for action in (*before_and_after[0], *before_and_after[1]):
        ran = steps.setdefault(type(action).__name__, [])
        action.run = ran.append
    before, after = before_and_after
    assert Trainer(on_paper, [*before, *own, *after]).fit() == "the last"
    assert on_paper.done == on_paper.train_steps
    return steps


@st.composite
def runs(draw):
    number = st.integers(1, 60)
    profile = st.none() | st.tuples(number, number).map(lambda pair: tuple(sorted(pair)))
    config = TrainConfig(
        log_steps=draw(number),
        eval_epochs=draw(st.integers(1, 3)),
        checkpoint_steps=draw(number),
        steps_per_loop=draw(st.integers(1, 20)),
        log_propagation_steps=draw(st.integers(0, 20)),
        profile_steps=draw(profile),
        global_batch_size=draw(st.integers(1, 40)),
    )
    train_steps = draw(number)
    start = draw(st.integers(0, train_steps - 1))
    return OnPaper(config, train_steps, draw(st.integers(1, 100)), start)


def steps_that_end_epochs(on_paper):
    """The steps in which the last image of every eval_epochs-th epoch is seen, one by one."""
    size, due = on_paper.config.global_batch_size, set()
    for image in range(on_paper.train_steps * size):
        epochs, left = divmod(image + 1, on_paper.data.info.train_count)
        if left == 0 and epochs % on_paper.config.eval_epochs == 0:
            due.add(image // size + 1)
    return due


@examples
@given(runs())
def test_each_action_runs_at_its_steps_and_at_no_others(on_paper):
    config, start, end = on_paper.config, on_paper.done, on_paper.train_steps
    ran, steps = course(on_paper), range(start + 1, end + 1)
    evaluations = [step for step in steps if step in steps_that_end_epochs(on_paper) | {end}]
    assert ran["Evaluate"] == evaluations
    assert ran["Log"] == [s for s in steps if s in evaluations or s % config.log_steps == 0]
    every = config.checkpoint_steps
    assert ran["Save"] == [s for s in steps if s in evaluations or s % every == 0]
    if every := config.log_propagation_steps:
        # Also before the first step, if one is due there.
        due = [s for s in range(start, end + 1) if s % every == 0 or s == end]
        assert ran["RecordPropagation"] == due
    else:
        assert "RecordPropagation" not in ran


@examples
@given(runs())
def test_a_profile_starts_before_its_first_step_and_stops_after_its_last(on_paper):
    start, end = on_paper.done, on_paper.train_steps
    ran = course(on_paper)
    if on_paper.config.profile_steps is None:
        assert "_StartProfile" not in ran
        return
    first, last = on_paper.config.profile_steps
    assert ran["_StartProfile"] == [first - 1] * (start <= first - 1 <= end)
    assert ran["_StopProfile"] == [last] * (start < last <= end)


@examples
@given(runs())
def test_as_many_steps_as_possible_are_taken_at_once(on_paper):
    ran = course(on_paper)
    due = {step for steps in ran.values() for step in steps}
    for start, stop in on_paper.taken:
        assert stop in due or stop - start == on_paper.config.steps_per_loop
        assert not due & set(range(start + 1, stop))


def test_a_run_that_is_asked_to_stop_is_saved_and_runs_no_action():
    class Asked(OnPaper):
        order = ()

        def is_asked_to_stop(self):
            return self.done == 12

        def save(self):
            self.order += ("saved",)

        def stop(self):
            self.order += ("stopped",)
            raise Interrupted("after step 12", 143)

    # All actions are due after step 12.
    options = {"log_steps": 12, "checkpoint_steps": 12, "log_propagation_steps": 12}
    config = TrainConfig(steps_per_loop=1, **options)
    asked = Asked(config, 12, 100)
    ran = AtStep(12, lambda: pytest.fail("ran"))
    with pytest.raises(Interrupted):
        course(asked, ran)
    assert asked.order == ("saved", "stopped")


def test_the_published_run_on_cifar_10_is_evaluated_after_each_epoch():
    # 50,000 / 128 = 390.625 steps an epoch.
    config = TrainConfig(global_batch_size=128, log_steps=100, steps_per_loop=500)
    on_paper = OnPaper(config, 64_000, 50_000)
    evaluations = course(on_paper)["Evaluate"]
    assert evaluations[:4] == [391, 782, 1172, 1563]
    assert len(evaluations) == 164  # 163.84 epochs
    assert [stop for _, stop in on_paper.taken][:6] == [100, 200, 300, 391, 400, 500]


@pytest.fixture
def profiler(monkeypatch):
    """Collects the calls of TensorFlow's profiler."""
    asked = []
    monkeypatch.setattr(tf.profiler.experimental, "start", lambda folder: asked.append(folder))
    monkeypatch.setattr(tf.profiler.experimental, "stop", lambda: asked.append("stop"))
    return asked


def test_a_profile_that_training_leaves_open_is_written(profiler, tmp_path):
    profile = Profile((2, 9), tmp_path)
    profile.start.run(1)
    profile.stop.close()
    profile.stop.close()
    assert profiler == [str(tmp_path), "stop"]


def test_no_profile_is_written_by_a_process_that_writes_nothing_or_behind_the_first_step(profiler):
    for profile in (Profile((2, 4), None), Profile((2, 4), "folder")):
        profile.start.begin(SimpleNamespace(done=2))
        profile.stop.run(4)
    elsewhere = Profile((2, 4), None)
    elsewhere.start.run(1)
    elsewhere.stop.run(4)
    assert profiler == []


def test_a_record_that_cannot_be_measured_is_announced_and_time_spent_on_records_not_counted():
    class Recorder:
        def measure(self, done):
            if done == 4:
                raise ArithmeticError("The two terms must add up.")
            return f"record {done}"

    records, lines, restarts = [], [], []
    on_paper = OnPaper(TrainConfig(log_propagation_steps=2, steps_per_loop=1), 5, 100)
    on_paper.restart_clocks = lambda: restarts.append(on_paper.done)
    on_paper.writer = SimpleNamespace(
        has_propagation=lambda done: done == 2,
        propagation=records.append,
        line=lines.append,
        finish=lambda done, monitor: None,
    )
    Trainer(on_paper, [RecordPropagation(on_paper, Recorder())]).fit()
    # Step 2 had been recorded before.
    assert records == ["record 0", "record 5"]
    assert lines == ["No record of signal and gradient after step 4: The two terms must add up."]
    # After each record, and once the first step is compiled.
    assert restarts == [0, 1, 4, 5]


class Noting:
    """A user's action that is no subclass of `Action`."""

    def __init__(self, every):
        self.every, self.ran = every, []

    def next_due(self, done):
        return (done // self.every + 1) * self.every

    def run(self, done):
        self.ran.append(done)


@pytest.mark.usefixtures("without_pictures")
def test_a_users_own_actions_run_after_the_evaluation_and_before_it_is_saved(tmp_path):
    class Looking(Action):
        def begin(self, run):
            self.training, self.seen, self.before = run, [], np.zeros(10)

        def next_due(self, done):
            return None if done == 6 else 6

        def run(self, done):
            weights = self.training.state.network.get_layer("logits").bias
            changes, self.before = not np.array_equal(weights, self.before), np.array(weights)
            saved = (tmp_path / "checkpoints" / "step-6").exists()
            self.seen.append((changes, self.training.evaluation is not None, saved))

    looking, noting = Looking(), Noting(4)
    evaluation = run(small(tmp_path, steps_per_loop=10), actions=[looking, noting])
    assert looking.seen == [(True, True, False)]
    assert noting.ran == [4]
    assert looking.training.evaluation is evaluation


@pytest.mark.usefixtures("without_pictures")
def test_an_action_that_diverges_rolls_the_run_back(tmp_path):
    failures = ["once"]

    def fail():
        if failures:
            raise DivergenceError(f"Not good enough, {failures.pop()}.")

    run(small(tmp_path, on_nan="rollback"), actions=[AtStep(3, fail)])
    assert [row.step for row in metrics_file.read(tmp_path / "metrics.csv")] == [6]


@pytest.mark.parametrize("step", [0, -1])
def test_an_action_that_is_due_in_the_past_is_refused(step):
    class Late(Noting):
        def next_due(self, done):
            return step

    with pytest.raises(ValueError, match=rf"next_due\(done\) of Late .* next_due\(0\) = {step}"):
        course(OnPaper(TrainConfig(steps_per_loop=1), 5, 100), Late(1))


def test_an_action_must_define_both_methods():
    for method in ("next_due", "run"):
        with pytest.raises(NotImplementedError, match=f"Action must define {method}"):
            getattr(Action(), method)(0)
