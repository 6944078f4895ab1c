"""What is due after how many steps, against a count of every image of a run."""

from hypothesis import given, settings
from hypothesis import strategies as st

from keras_preact.training import TrainConfig
from keras_preact.training.timetable import Timetable

examples = settings(max_examples=200, deadline=None)


@st.composite
def timetables(draw):
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
    return Timetable(config, draw(number), draw(st.integers(1, 100)))


def steps_that_end_epochs(table):
    """The steps in which the last image of every eval_epochs-th epoch is seen, one by one."""
    size, due = table.config.global_batch_size, set()
    for image in range(table.train_steps * size):
        epochs, left = divmod(image + 1, table.train_count)
        if left == 0 and epochs % table.config.eval_epochs == 0:
            due.add(image // size + 1)
    return due


def walk(table, start=0):
    """The steps at which a run comes back to look at the timetable."""
    done, stops = start, []
    while done < table.train_steps:
        ahead = table.steps_ahead(done)
        assert 1 <= ahead <= table.config.steps_per_loop
        done += ahead
        stops.append(done)
    assert done == table.train_steps
    return stops


@examples
@given(timetables())
def test_evaluations_end_epochs_and_the_run(table):
    found = {step for step in range(1, table.train_steps + 1) if table.evaluates(step)}
    assert found == steps_that_end_epochs(table) | {table.train_steps}


@examples
@given(timetables())
def test_logs_and_checkpoints_are_due_at_their_steps_and_at_evaluations(table):
    for step in range(1, table.train_steps + 1):
        evaluates = table.evaluates(step)
        assert table.logs(step) == (evaluates or step % table.config.log_steps == 0)
        every = table.config.checkpoint_steps
        assert table.saves(step) == (evaluates or step % every == 0)


@examples
@given(timetables())
def test_records_of_propagation_are_due_before_the_first_step_at_theirs_and_after_the_last(table):
    every = table.config.log_propagation_steps
    found = {step for step in range(table.train_steps + 1) if table.propagates(step)}
    assert found == ({*range(0, table.train_steps, every), table.train_steps} if every else set())


@examples
@given(timetables(), st.data())
def test_no_step_at_which_something_is_due_is_jumped_over(table, data):
    start = data.draw(st.integers(0, table.train_steps - 1))
    stops = walk(table, start)
    for step in range(start + 1, table.train_steps + 1):
        due = table.logs(step), table.propagates(step), table.evaluates(step), table.saves(step)
        assert step in stops or not any(due)
    first, last = table.config.profile_steps or (1, 0)
    # A profile starts before its first step and ends after its last.
    for step in (first - 1, last):
        assert step in stops or not start < step <= table.train_steps


@examples
@given(timetables())
def test_as_many_steps_as_possible_are_taken_at_once(table):
    first, last = table.config.profile_steps or (0, 0)
    start = 0
    for stop in walk(table):
        due = table.logs(stop), table.propagates(stop), table.saves(stop), stop in (first - 1, last)
        assert any(due) or stop - start == table.config.steps_per_loop
        start = stop


def test_the_published_run_on_cifar_10_is_evaluated_after_each_epoch():
    # 50,000 / 128 = 390.625 steps an epoch.
    config = TrainConfig(global_batch_size=128, log_steps=100, steps_per_loop=500)
    table = Timetable(config, 64_000, 50_000)
    evaluations = [step for step in range(1, 64_001) if table.evaluates(step)]
    assert evaluations[:4] == [391, 782, 1172, 1563]
    assert len(evaluations) == 164  # 163.84 epochs
    assert walk(table)[:6] == [100, 200, 300, 391, 400, 500]
