"""Chooses the schedule of fine-tuning by the number and the size of the images.

After BiT-HyperRule: Kolesnikov et al., "Big Transfer (BiT): General Visual Representation
Learning" (2020), section 3.3.
"""

import dataclasses
import math
from collections.abc import Collection

from keras_preact.training.config import TrainConfig
from keras_preact.training.steps import schedules

# Of the schedule: where the learning rate drops.
DROPS = (0.3, 0.6, 0.9)
# At BiT's batch size. BiT has 0.003, for nets without BN that are up to 12 times as wide.
LEARNING_RATE = 0.05
BATCH_SIZE = 512
SMALL_PIXELS = 96**2
SMALL_SIZE, SIZE = 128, 224


@dataclasses.dataclass(frozen=True)
class Task:
    """A row of the rule.

    Args:
        name: for people.
        images: the first number of images that is too many.
        steps: of the schedule.
        least_epochs: the schedule is longer where it would not reach these.
        mixup_alpha: of mixup; 0 for none.
    """

    name: str
    images: float
    steps: int
    least_epochs: int
    mixup_alpha: float


# Images, steps and mixup are BiT's. With its batches of 512 the epochs change nothing up to
# the 1.28 million images of ImageNet.
TASKS = (
    Task("small", 20_000, 500, 10, 0.0),
    Task("medium", 500_000, 10_000, 10, 0.1),
    Task("large", math.inf, 20_000, 8, 0.1),
)


@dataclasses.dataclass(frozen=True)
class Choice:
    """What the rule chooses for a task.

    Args:
        task: "small", "medium" or "large".
        steps: length of the schedule.
        learning_rate: before the first drop.
        mixup_alpha: of mixup; 0 for none.
    """

    task: str
    steps: int
    learning_rate: float
    mixup_alpha: float


def choose(images: int, batch_size: int) -> Choice:
    """Returns the schedule for a number of training images.

    Args:
        images: number of training images, above 0.
        batch_size: images in a step, above 0.

    Raises:
        ValueError: if a number is not above 0.
    """
    for name, number in (("images", images), ("batch_size", batch_size)):
        if not number > 0:
            raise ValueError(f"{name} must be above 0. Received: {name}={number}")
    task = next(task for task in TASKS if images < task.images)
    steps = max(task.steps, math.ceil(task.least_epochs * images / batch_size))
    rate = LEARNING_RATE * batch_size / BATCH_SIZE
    return Choice(task.name, steps, rate, task.mixup_alpha)


def choose_size(pixels: float | None, source_size: int | None = None) -> int:
    """Returns height and width, in pixels, to which images are brought.

    Args:
        pixels: of an image, height times width, as most have; None if not known.
        source_size: height or width of the images that the network has learned from; None if
            not known.

    Raises:
        ValueError: if a number is not above 0.
    """
    for name, number in (("pixels", pixels), ("source_size", source_size)):
        if number is not None and not number > 0:
            raise ValueError(f"{name} must be above 0. Received: {name}={number}")
    size = source_size or SIZE
    is_small = pixels is not None and pixels < SMALL_PIXELS
    return min(size, SMALL_SIZE) if is_small else size


def complete(
    config: TrainConfig, given: Collection[str], images: int
) -> tuple[TrainConfig, Choice]:
    """Returns a configuration with the rule's choice where a field was not given, and the choice.

    A length that was given replaces the rule's, and the drops follow it. The learning rate is
    chosen for SGD alone, drops and the warm-up for schedule=steps.

    Args:
        config: with the rule.
        given: names of the fields that the user set.
        images: number of training images.
    """
    choice, given = choose(images, config.global_batch_size), set(given)
    changes = {"mixup_alpha": choice.mixup_alpha}
    if config.optimizer == "sgd":
        changes["learning_rate"] = choice.learning_rate
    if config.schedule == "steps" and config.warmup_epochs is None:
        changes["warmup_steps"] = 0
    steps = choice.steps

    def in_steps(epochs):
        return schedules.in_steps(epochs, images, config.global_batch_size)

    if config.schedule_steps or config.schedule_epochs:
        steps = config.schedule_steps or in_steps(config.schedule_epochs)
    else:
        if not config.scale_schedule and (config.train_steps or config.train_epochs):
            steps = config.train_steps or in_steps(config.train_epochs)
        changes["schedule_steps"] = steps
    if config.schedule == "steps" and not (config.drop_steps or config.drop_epochs):
        drops = sorted({max(1, round(share * steps)) for share in DROPS})
        changes["drop_steps"] = tuple(drops)
    changes = {name: value for name, value in changes.items() if name not in given}
    return dataclasses.replace(config, **changes), choice
