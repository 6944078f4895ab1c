"""The text of --augmentation."""

import pytest

from keras_preact.data.augmentation_text import Augmentation, parse


@pytest.mark.parametrize(
    ("text", "read", "whole"),
    [
        ("pad_crop", Augmentation("pad_crop"), "pad_crop"),
        ("trivial_augment", Augmentation(None, (("trivial_augment", None),)), "trivial_augment"),
        (
            "none, rand_augment ,random_erasing=0.25",
            Augmentation("none", (("rand_augment", 9), ("random_erasing", 0.25))),
            "none,rand_augment=9,random_erasing=0.25",
        ),
        (
            "random_erasing=1,color_jitter=.5,hue_jitter=0",
            Augmentation(
                None, (("random_erasing", 1.0), ("color_jitter", 0.5), ("hue_jitter", 0.0))
            ),
            "random_erasing=1,color_jitter=0.5,hue_jitter=0",
        ),
    ],
    ids=["base", "operation", "defaults", "numbers"],
)
def test_texts_are_read_and_written_in_full(text, read, whole):
    assert parse(text) == read
    assert str(parse(text)) == whole
    assert parse(whole) == read


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "flip",
            ["must be BASE[,OPERATION[=NUMBER]]...", "of none, pad_crop", "augmentation='flip'"],
        ),
        ("pad_crop,rand_augmnt=9", ["Did you mean 'rand_augment'?"]),
        ("", ["must be BASE"]),
        ("pad_crop,", ["must be BASE"]),
        ("rand_augment=31", ["a magnitude, a whole number of 0 to 30", "'rand_augment=31'"]),
        ("rand_augment=2.5", ["a whole number of 0 to 30"]),
        ("rand_augment=nan", ["a whole number of 0 to 30"]),
        ("color_jitter=-0.1", ["a strength, a number of 0 to 1."]),
        ("hue_jitter=0.6", ["a part of the circle, a number of 0 to 0.5"]),
        ("random_erasing=", ["a probability, a number of 0 to 1"]),
        ("trivial_augment=3", ["trivial_augment takes no number"]),
        ("trivial_augment,pad_crop", ["must begin with its base, pad_crop"]),
        ("pad_crop,none", ["must begin with its base, none"]),
        ("color_jitter,color_jitter=0.2", ["must name color_jitter once"]),
        ("rand_augment,trivial_augment", ["one of rand_augment and trivial_augment, not both"]),
    ],
)
def test_texts_that_break_the_rules_are_refused(text, words):
    with pytest.raises(ValueError, match=r"^augmentation ") as error:
        parse(text)
    for word in words:
        assert word in str(error.value)
