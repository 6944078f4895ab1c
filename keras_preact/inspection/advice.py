"""Suggestions in plain words, from the facts of a report."""

from collections.abc import Iterator, Sequence

import numpy as np

from keras_preact.support.text import printable

# Classes differ by more: training should make up for it.
MOST_IMBALANCE = 10
# Training images of a class, below which it is hard to learn; of all classes, below which a
# network that others have trained is the better beginning.
FEWEST_OF_CLASS, FEWEST_IN_ALL = 20, 5000
# Images whose accuracy says something: one of them is then at most one per cent.
FEWEST_EVALUATED = 100
# An image is enlarged by more: it holds no more than a smaller one.
MOST_ENLARGEMENT = 1.25
_QUOTED = 5


def suggestions(report) -> list[str]:
    """Returns sentences for the user of a data set, the most important first.

    Args:
        report: a `Report`.
    """
    return [*_about_files(report), *_about_classes(report), *_about_sizes(report)]


def _about_files(report) -> Iterator[str]:
    groups = report.duplicates or []
    if across := [group for group in groups if group.across_splits]:
        yield (
            f"{_images(len(across))} in more than one split: the evaluation counts what training "
            f"has seen. Remove the copies from one side, such as {_example(across[0])}."
        )
    if differ := [group for group in groups if group.labels_differ]:
        yield (
            f"{_images(len(differ))} with copies of another label, such as {_example(differ[0])}: "
            "correct the labels, or remove the copies."
        )
    if count := len(report.unreadable):
        files = "1 file" if count == 1 else f"{count:,} files"
        yield (
            f"{files} cannot be read as images: replace or remove them, or train with "
            "--skip_bad_images."
        )


def _about_classes(report) -> Iterator[str]:
    names, train = report.dataset.info.class_names, report.counts["train"]
    if len(absent := np.flatnonzero(train == 0)):
        yield f"No training image of {_some(names, absent)}: nothing can be learned of them."
    few = np.flatnonzero((train > 0) & (train < FEWEST_OF_CLASS))
    if len(few):
        yield (
            f"Fewer than {FEWEST_OF_CLASS} training images of {_some(names, few)}: collect more, "
            "or join classes."
        )
    present = train[train > 0]
    imbalance = present.max() / present.min() if len(present) else 1
    if imbalance > MOST_IMBALANCE and report.dataset.sampling == "natural":
        yield (
            f"The largest class has {imbalance:,.0f} times the training images of the smallest: "
            "train with --class_weights=auto or --sampling=sqrt."
        )
    if len(absent := np.flatnonzero(report.counts["eval"] == 0)):
        yield f"No validation image of {_some(names, absent)}: nothing is measured of them."
    info = report.dataset.info
    if info.eval_count < FEWEST_EVALUATED:
        yield (
            f"With {info.eval_count:,} validation images, one image is "
            f"{1 / info.eval_count:.1%} of the accuracy: small differences mean nothing."
        )
    if info.train_count < FEWEST_IN_ALL:
        yield (
            f"With {info.train_count:,} training images, begin with a network that has been "
            "trained on more: --init_from."
        )


def _about_sizes(report) -> Iterator[str]:
    height, width = report.dataset.info.image_shape[:2]
    # Images in memory keep their size.
    if report.dataset.info.resize_ratio == 1.0 or not len(report.sizes.widths):
        return
    short = np.median(np.minimum(report.sizes.widths, report.sizes.heights))
    if min(height, width) > MOST_ENLARGEMENT * short:
        fitting = max(32, int(short) // 32 * 32)
        yield (
            f"The median image is {short:,.0f} pixels on its short side and is enlarged to "
            f"{height}: --image_size={fitting} trains faster and sees as much."
        )


def _images(count):
    return "1 image is" if count == 1 else f"{count:,} images are"


def _example(group):
    return " = ".join(printable(name) for name, _, _ in group.images[:_QUOTED])


def _some(names: Sequence[str], numbers: np.ndarray) -> str:
    quoted = ", ".join(printable(names[number]) for number in numbers[:_QUOTED])
    more = len(numbers) - _QUOTED
    return f"{quoted} and {more:,} more classes" if more > 0 else quoted
