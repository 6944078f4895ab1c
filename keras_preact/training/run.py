"""One run from its configuration: train, resume or evaluate. train.py calls `run`."""

import shlex

import keras
import tensorflow as tf

from keras_preact.data import Dataset, DatasetInfo, datasets
from keras_preact.models import ResNetV2
from keras_preact.training import checkpoint, optimizer
from keras_preact.training.config import TrainConfig
from keras_preact.training.evaluation import Evaluation, evaluate
from keras_preact.training.flags import this_python
from keras_preact.training.run_folder import RunFolder, check_same_data
from keras_preact.training.step import make_eval_step
from keras_preact.training.trainer import Trainer


def run(config: TrainConfig) -> Evaluation:
    """Trains, resumes or evaluates, as config.mode and config.resume say.

    Returns:
        The last evaluation.

    Raises:
        ValueError: if the configuration, the data or the run folder is not as needed.
        DivergenceError: if the loss becomes NaN or infinite.
        Interrupted: after SIGINT or SIGTERM, once the run has been saved.
    """
    return _evaluate(config) if config.mode == "evaluate" else _train(config)


def _train(config):
    config.require("dataset", "depth")
    folder = RunFolder(config.folder)
    folder.check_free(config)
    keras.utils.set_random_seed(config.seed)
    data = load_data(config)
    schedule = optimizer.make_schedule(config, data.info.train_count)
    strategy = tf.distribute.get_strategy()
    with strategy.scope():
        model = build_model(config, data.info)
        sgd = optimizer.make_optimizer(config, schedule, model)
    if folder.holds_a_run():
        if config.resume:
            check_same_data(data.info, folder.read()[1])
        else:
            folder.set_aside()
    trainer = Trainer(config, data, model, sgd, schedule, folder, strategy)
    start = trainer.restore()
    folder.begin(config, data.info)
    print(
        f"{model.name} with {config.unit} units, {model.count_params():,} parameters, on "
        f"{data.info.train_count:,} images of {data.info.name} for {schedule.train_steps:,} steps "
        f"of {config.global_batch_size}. Run folder: {folder}",
        flush=True,
    )
    result = trainer.fit(start)
    print(
        f"Finished: evaluation {result}\n"
        f"  run:    {folder}\n"
        f"  curves: {folder.curves}\n"
        f"  export: {this_python()} export.py --run_dir={shlex.quote(str(folder))}"
    )
    return result


def _evaluate(config):
    config.require("run_dir")
    folder = RunFolder(config.run_dir)
    folder.check_evaluable(config)
    _, info = folder.read()
    path = checkpoint.find(folder.checkpoints, config.checkpoint)
    data = load_data(config)
    check_same_data(data.info, info)
    model = restore_model(folder, path)
    step = make_eval_step(model, info, tf.distribute.get_strategy())
    result = evaluate(step, data.eval(config.global_batch_size), data.info.eval_count)
    print(f"{folder} at step {checkpoint.step_of(path):,}: {result}")
    return result


def load_data(config: TrainConfig) -> Dataset:
    """The data of a run.

    Raises:
        ValueError: as `datasets.load` does, or if the augmentation does not fit.
    """
    data = datasets.load(
        config.dataset,
        data_dir=config.data_dir,
        image_size=config.image_size,
        skip_bad_images=config.skip_bad_images,
    )
    data.check_augmentation(config.augmentation)
    return data


def build_model(config: TrainConfig, info: DatasetInfo) -> keras.Model:
    """The network of a run, with new weights."""
    return ResNetV2(
        config.depth,
        input_shape=info.image_shape,
        classes=info.classes,
        stem=config.stem,
        block=config.block,
        unit=config.unit,
        shortcut=config.make_shortcut(),
        projection=config.projection,
        width_multiplier=config.width_multiplier,
    )


def restore_model(folder: RunFolder, path: str) -> keras.Model:
    """The network of a run with the weights of one of its checkpoints."""
    model = build_model(*folder.read())
    checkpoint.load_model(path, model)
    return model
