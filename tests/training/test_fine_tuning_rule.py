"""BiT's rule: what it says at BiT's batch size, what changes with others, and what users give."""

import pytest

from keras_preact.training import TrainConfig, fine_tuning_rule
from keras_preact.training.fine_tuning_rule import choose, choose_size
from keras_preact.training.steps.schedules import make_schedule


@pytest.mark.parametrize(
    ("images", "steps", "mixup"),
    [
        (1, 500, 0.0),
        (19_999, 500, 0.0),
        (20_000, 10_000, 0.1),
        (499_999, 10_000, 0.1),
        (500_000, 20_000, 0.1),
        (1_280_000, 20_000, 0.1),
    ],
)
def test_steps_and_mixup_are_those_of_the_paper_at_its_batch_size(images, steps, mixup):
    choice = choose(images, 512)
    assert (choice.steps, choice.mixup_alpha) == (steps, mixup)
    assert choice.learning_rate == 0.05


def test_smaller_batches_take_more_steps_only_where_epochs_would_be_few():
    assert choose(600, 32).steps == 500
    assert choose(15_000, 32).steps == 4688  # ten epochs
    assert choose(1_281_167, 256).steps == 40_037  # eight
    assert choose(600, 32).learning_rate == pytest.approx(0.05 / 16)


@pytest.mark.parametrize(
    ("pixels", "source", "size"),
    [
        (500 * 375, None, 224),
        (500 * 375, 224, 224),
        (500 * 375, 299, 299),
        (96 * 96, 224, 224),
        (95 * 96, 224, 128),
        (32 * 32, 32, 32),
        (500 * 375, 32, 32),
        (None, 160, 160),
        (None, None, 224),
    ],
)
def test_images_have_the_sources_size_unless_they_are_small(pixels, source, size):
    assert choose_size(pixels, source) == size


@pytest.mark.parametrize("arguments", [(0, 32), (-1, 32), (10, 0)])
def test_numbers_below_one_are_refused(arguments):
    with pytest.raises(ValueError, match="must be above 0"):
        choose(*arguments)
    with pytest.raises(ValueError, match="pixels must be above 0"):
        choose_size(0.0)


def complete(images=600, **given):
    config = TrainConfig(schedule_rule="bit", global_batch_size=32, **given)
    config, _ = fine_tuning_rule.complete(config, set(given), images)
    return config, make_schedule(config, images)


def test_the_rule_decides_what_is_not_given():
    config, schedule = complete()
    assert (schedule.train_steps, schedule.drop_steps) == (500, (150, 300, 450))
    assert (config.warmup_steps, config.mixup_alpha, config.drop_factor) == (0, 0.0, 0.1)
    assert [round(float(schedule(step)), 7) for step in (0, 149, 150, 499)] == [
        *(0.003125, 0.003125),
        *(0.0003125, 0.0000031),
    ]
    assert complete(images=20_000)[0].mixup_alpha == 0.1


@pytest.mark.parametrize(
    ("given", "steps", "drops"),
    [
        ({"train_steps": 1000}, 1000, (300, 600, 900)),
        ({"train_epochs": 16.0}, 300, (90, 180, 270)),
        ({"schedule_steps": 100}, 100, (30, 60, 90)),
        ({"schedule_epochs": 16.0}, 300, (90, 180, 270)),
        ({"train_steps": 50, "scale_schedule": True}, 50, (15, 30, 45)),
        ({"drop_steps": (7,)}, 500, (7,)),
        ({"drop_epochs": (16.0,)}, 500, (300,)),
        ({"train_steps": 1}, 1, (1,)),
        ({"train_steps": 2}, 2, (1, 2)),
    ],
    ids=str,
)
def test_lengths_and_drops_that_are_given_win(given, steps, drops):
    _, schedule = complete(**given)
    assert (schedule.train_steps, schedule.drop_steps) == (steps, drops)


def test_other_values_that_are_given_win_even_where_they_are_the_defaults():
    given = {"learning_rate": 0.1, "mixup_alpha": 0.0, "warmup_steps": 400}
    config, _ = complete(images=20_000, **given)
    assert {name: getattr(config, name) for name in given} == given


def test_the_rate_is_for_sgd_and_drops_for_a_schedule_that_has_them():
    config, _ = complete(optimizer="adamw")
    assert config.learning_rate is None and config.resolved().learning_rate == 1e-3
    assert config.drop_steps == (150, 300, 450)
    config, schedule = complete(schedule="cosine")
    assert config.learning_rate == pytest.approx(0.05 / 16) and config.drop_steps is None
    assert (schedule.schedule_steps, schedule.warmup_steps) == (500, 25)
