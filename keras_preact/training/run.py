"""Trains, resumes or evaluates a run from its configuration; train.py calls `run`."""

import contextlib
import os
import shlex
from collections.abc import Collection, Sequence

import keras
import tensorflow as tf

from keras_preact.data import Dataset, DatasetInfo, datasets
from keras_preact.data.summary import one_line
from keras_preact.layers import Preprocessing
from keras_preact.support import console, own_code, startup
from keras_preact.support.commands import program
from keras_preact.support.console import say
from keras_preact.support.machine import gpu_advice
from keras_preact.support.paths import usable
from keras_preact.support.signals import Interrupted
from keras_preact.training import class_weights, held_out, memory, own_units
from keras_preact.training.actions import standard_actions
from keras_preact.training.checkpoints import checkpoint as checkpoints
from keras_preact.training.checkpoints.folder import step_of
from keras_preact.training.config import TrainConfig
from keras_preact.training.distribution import strategies
from keras_preact.training.distribution.agreement import Agreement
from keras_preact.training.distribution.cluster import from_environment
from keras_preact.training.distribution.distributed_input import naming_unreadable
from keras_preact.training.interruption import Interruption
from keras_preact.training.networks import build_model, restore_model
from keras_preact.training.reporting import metrics_file, propagation_file, trackers
from keras_preact.training.reporting.start_times import StartTimes
from keras_preact.training.run_folder import RunFolder, check_same_data
from keras_preact.training.run_in_progress import Run
from keras_preact.training.start import Start, changed_fields
from keras_preact.training.steps import optimizer, schedules
from keras_preact.training.steps.evaluation import Evaluator
from keras_preact.training.steps.freezing import make_freezing
from keras_preact.training.steps.objective import make_objective
from keras_preact.training.steps.scores import Evaluation, MultiLabelEvaluation, chosen_monitor
from keras_preact.training.steps.train_state import make_state
from keras_preact.training.trainer import Action, Trainer


def run(
    config: TrainConfig, actions: Sequence[Action] = (), given: Collection[str] | None = None
) -> Evaluation | MultiLabelEvaluation:
    """Trains, resumes or evaluates a run, by config.mode and config.resume.

    Args:
        config: configuration of the run.
        actions: your own, to run between steps; see `Action`.
        given: names of the fields that the user set: init_from and schedule_rule decide others.
            By default those that differ from their defaults.

    Returns:
        The last evaluation.

    Raises:
        ValueError: if the configuration, the data or the run folder is invalid, or another
            process uses the run folder.
        DivergenceError: if the loss becomes NaN or infinite.
        Interrupted: after SIGINT, SIGTERM or SIGHUP, or at the time limit; the run has been
            saved.
        SaveError: if saving fails twice in a row.
        WorkerLostError: if another worker of the run has ended or cannot be reached.
    """
    cluster = from_environment(os.environ)
    with console.unbreakable(), Agreement(config, cluster) as agreement, own_code.blamed():
        if config.mode == "evaluate" and (config.run_dir or not config.init_from):
            return _evaluate(config, cluster, agreement)
        start = Start(config, changed_fields(config) if given is None else given)
        if config.mode == "evaluate":
            return _evaluate_origin(start, cluster, agreement)
        return _train(start, cluster, agreement, actions)


def _train(start, cluster, agreement, actions):
    config = start.config
    # In another program, of which training is a part, the imports are long past.
    times = StartTimes(startup.BEGAN if startup.PROGRAM else None)
    config.require("dataset", *(() if config.init_from else ("depth",)))
    trackers.check(config.log_to)
    minutes = config.max_runtime_minutes
    interruption = Interruption(minutes and 60 * minutes, tell=say)
    folder = RunFolder(config.folder)
    writes = cluster is None or cluster.is_chief
    with folder.locked(config.resume) if writes else contextlib.nullcontext():
        start.go_on(folder)
        folder.check_free(start.config)
        with strategies.prepared(start.config, cluster, agreement.on_plan) as devices:
            start.read_origin(folder)
            with times.part("data"):
                data = load_data(start.config, like=start.like)
            start.know_data(data)
            config = start.config
            check_labels(config, data.info)
            memory.check(config, data.info, devices.plan)
            start.notes += memory.warnings(config, data.info, devices.plan)
            agreement.on_data(data)
            # Reading the origin may have drawn random numbers.
            keras.utils.set_random_seed(config.seed)
            state = _make_state(start, data.info, devices, times)
            training = Run(config, data, devices, state, folder, interruption, times)
            if training.class_weights:
                start.notes.append(class_weights.told(training.class_weights))
            before, after = standard_actions(training)
            _restore(training)
            _announce(training, start.notes)
            return _finish(training, Trainer(training, [*before, *actions, *after]))


def _make_state(start, info, devices, times):
    config = start.config
    with devices.strategy.scope():
        with times.part("network"):
            network = build_model(config, info, sync_bn=config.sync_bn)
            start.begin(network)
        schedule = schedules.make_schedule(config, info.train_count)
        sgd = optimizer.make_optimizer(config, schedule, network)
        freezing = make_freezing(config, info.train_count, network)
        with times.part("state"):
            return make_state(config, network, sgd, devices.plan, freezing)


def _restore(training):
    """Restores the newest checkpoint, or moves the run that was here before aside."""
    config, folder = training.config, training.folder
    if config.resume and folder.holds_a_run():
        folder.check_same_division(training.data.division)
        check_same_data(training.data.info, folder.read()[1], trained_on=True)
        metrics_file.read(folder.metrics)
        propagation_file.read(folder.propagation)
        folder.check_nothing_lost()
        metrics_file.check_writable(folder.tensorboard)
        training.restore()
    elif folder.holds_a_run() and training.devices.writes:
        folder.set_aside()


def _announce(training, notes):
    config, data, folder = training.config, training.data, training.folder
    plan, network = training.devices.plan, training.state.network
    unit = own_units.label(config.unit)
    if training.devices.writes:
        folder.begin(config, data.info, plan, training.done, training.class_weights)
        folder.keep_division(data.division)
    if training.devices.writes:
        training.writer.line(one_line(data))
    training.writer.line(
        f"{network.name} with {unit} units, {network.count_params():,} parameters, on "
        f"{data.info.train_count:,} images of {data.info.name} for {training.train_steps:,} "
        f"steps of {config.global_batch_size}. Run folder: {folder}\n{plan}"
        + "".join(f"\n{note}" for note in notes)
        + (f"\nContinuing after step {training.done:,}" if training.done else "")
        + (f"\n{folder.kept_aside()}" if folder.aside.exists() else "")
    )
    if advice := gpu_advice(bool(tf.config.list_physical_devices("GPU"))):
        training.writer.line(advice)


def _finish(training, trainer):
    folder = training.folder
    try:
        result = _evaluate_again(training) if training.is_complete else trainer.fit()
    except Interrupted as interrupted:
        if folder.aside.exists():
            interrupted.add_note(folder.kept_aside())
        raise
    training.writer.line(
        f"Finished: evaluation {result}\n"
        f"  run:    {folder}\n"
        f"  curves: {folder.curves}\n"
        f"  export: {program('export')} --run_dir={shlex.quote(str(folder))}"
        + (" --checkpoint=best" if training.stops_early else "")
    )
    return result


def _evaluate_again(training):
    done = f"{training.done:,}"
    why = f"it has taken all {done} steps."
    if training.stops_early:
        why = f"it stopped early after step {done}: {training.monitor}"
    training.writer.line(f"The run is complete: {why}")
    if (evaluation := training.evaluate_as_it_is()) is None:
        raise training.interruption.interrupted(f"after the last step, {done}")
    if held_out.is_due(training):
        with training.in_session():
            held_out.report(training)
    elif result := held_out.read(training):
        training.writer.line(str(result))
    return evaluation


def _evaluate(config, cluster, agreement):
    config.require("run_dir")
    folder = RunFolder(config.run_dir)
    config, notes = folder.with_own_code(config)
    folder.check_evaluable(config)
    _, info = folder.read()
    checkpoints.find(folder.checkpoints, config.checkpoint, tell=lambda line: None)
    with strategies.prepared(config, cluster, agreement.on_plan) as devices:
        strategy = devices.strategy
        data = load_data(config, info)
        memory.check(config, info, devices.plan)
        agreement.on_data(data)
        check_same_data(data.info, info)
        with strategy.scope():
            # A second time: a run that still trains may have deleted the first.
            path = checkpoints.find(folder.checkpoints, config.checkpoint, run=folder.recorded_id())
            strategies.check_same_start(strategy, step_of(path))
            model = restore_model(folder, path)
        where = "".join(f"{note}\n" for note in notes) + f"{folder} at step {step_of(path):,}"
        return _evaluated(model, where, data, devices, config)


def _evaluate_origin(start, cluster, agreement):
    """Evaluates the network in init_from, without a run."""
    start.config.require("dataset")
    with strategies.prepared(start.config, cluster, agreement.on_plan) as devices:
        start.read_origin(RunFolder(start.config.folder))
        data, config = load_data(start.config, like=start.like), start.config
        memory.check(config, data.info, devices.plan)
        agreement.on_data(data)
        start.check_classes(data)
        with devices.strategy.scope():
            model = build_model(config, data.info)
            start.begin(model)
        return _evaluated(model, config.init_from, data, devices, config)


def _evaluated(model, where, data, devices, config):
    evaluator = Evaluator(model, data, devices.plan, devices.strategy)
    with naming_unreadable(data, "eval", lambda: range(data.info.eval_count)):
        result = evaluator(config.global_batch_size)
    if devices.writes:
        say(f"{where}: {result}")
    return result


def load_data(
    config: TrainConfig, recorded: DatasetInfo | None = None, like: Preprocessing | None = None
) -> Dataset:
    """Loads the data of a run.

    Args:
        config: configuration of the run.
        recorded: gives mean, deviation and resizing; the former are then not measured again.
        like: in place of recorded.

    Raises:
        ValueError: as `datasets.load` does, or if the augmentation does not fit the data.
    """
    if config.data_dir is not None:
        # Nothing in it is looked up by a glob pattern.
        usable(config.data_dir, "data_dir", wildcards=True)
    memory.check_image_size(config)
    data = datasets.load(
        config.dataset,
        data_dir=config.data_dir,
        image_size=config.image_size,
        skip_bad_images=config.skip_bad_images,
        crop_ratio=config.crop_ratio,
        like=recorded.preprocessing if recorded else like,
        split=config.split,
        sampling=config.sampling,
        validation_images=config.validation_images,
    )
    data.check_augmentation(config.augmentation)
    return data


def check_labels(config: TrainConfig, info: DatasetInfo) -> None:
    """Raises ValueError if loss or monitor do not suit the labels of a data set."""
    make_objective(config, info)
    chosen_monitor(config.monitor, info.multi_label)


def restore_data(folder: RunFolder, data_dir: str | None = None) -> Dataset:
    """Loads the data of a run, with the mean and deviation of its training.

    Args:
        folder: of the run.
        data_dir: folder of the images; default: the one trained from.

    Raises:
        ValueError: as `load_data` does, or if the data are not those of the run.
    """
    config, info = folder.read()
    data = load_data(config.updated(data_dir=data_dir) if data_dir else config, info)
    check_same_data(data.info, info)
    return data
