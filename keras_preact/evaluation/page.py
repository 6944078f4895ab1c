"""The page of an evaluation: numbers, pictures and images in one HTML file."""

import base64
import struct
from collections.abc import Iterable, Mapping, Sequence
from html import escape

import numpy as np

from keras_preact.data.limits import covered_sides
from keras_preact.evaluation import multi_label, report
from keras_preact.evaluation.bootstrap import PERCENT
from keras_preact.evaluation.examples import Picture
from keras_preact.evaluation.report import Evaluation
from keras_preact.support.page import Section, document, picture, table
from keras_preact.support.text import printable
from keras_preact.version import __version__

# Classes that the table has; all are in per_class.csv.
_MOST_CLASSES = 150
_MOST_ROWS = 50
_STYLE = """
.wide { margin: 1rem 0 1.5rem; }
.cards { display: flex; flex-wrap: wrap; gap: 1rem; }
.cards figure { margin: 0; max-width: 100%; flex: 0 1 auto; }
.cards img { max-width: 100%; width: auto; height: auto; display: block; }
.cards figcaption { max-width: 31rem; font-size: 0.9rem; line-height: 1.35; }
"""


def html(
    evaluation: Evaluation,
    pngs: Mapping[str, bytes],
    mistakes: Sequence[Picture],
    uncertain: Sequence[Picture],
    why_no_maps: str | None,
) -> bytes:
    """Returns the page.

    Args:
        evaluation: its numbers.
        pngs: the pictures, by the names of their files.
        mistakes: the most confident ones.
        uncertain: the least certain images.
        why_no_maps: why there is no Grad-CAM; None if there is.
    """
    sections = [
        Section("numbers", "Numbers", list(_numbers(evaluation))),
        Section("calibration", "Calibration", list(_calibration(evaluation, pngs))),
        *([_compared(evaluation)] if evaluation.comparison else []),
        *_classes(evaluation, pngs),
        _cards(
            "mistakes",
            "The most confident mistakes",
            "Wrong answers of the highest probability: mislabelled images are found here, too.",
            mistakes,
            evaluation,
            why_no_maps,
        ),
        _cards(
            "uncertain",
            "The least certain images",
            "Images for which the model hardly prefers its answer.",
            uncertain,
            evaluation,
            why_no_maps,
        ),
        *([_left_out(evaluation)] if evaluation.problems else []),
        _meanings(evaluation),
    ]
    title = f"Evaluation of {printable(evaluation.model.name)}"
    return document(title, _facts(evaluation), sections, contents_after=1, style=_STYLE)


def _facts(evaluation):
    model, images = evaluation.model, evaluation.images
    preprocessing, config = model.preprocessing, evaluation.config
    height, width, _ = preprocessing.image_shape
    covered = covered_sides(preprocessing.image_shape, preprocessing.resize_ratio)
    crops = "the centre" if config.crops == 1 else "ten crops, averaged,"
    known, used = len(model.class_names), len(images.class_names)
    return {
        "images": f"{len(evaluation.answers):,}: {printable(images.description)}",
        "classes": f"{used:,}" if used == known else f"{used:,} of the model's {known:,}",
        "size": f"{height} x {width} pixels, {crops} of images that cover "
        f"{covered[0]} x {covered[1]}",
        "temperature": f"{preprocessing.temperature:g}",
        "keras_preact": __version__,
    }


def _numbers(evaluation) -> Iterable[str]:
    measures = evaluation.measures
    first = [name for name in report.HEADLINES if name in measures.numbers]
    rest = [name for name in measures.numbers if name not in first]
    head = ("number", "value", f"{PERCENT} % interval")
    for names, caption in ((first, ""), (rest, "Further numbers; report.json has all.")):
        rows = [
            (
                words(name),
                _joined(report.shown(name, measures.numbers[name])),
                _joined(report.shown_interval(name, measures.intervals.get(name))),
            )
            for name in names
        ]
        yield from table("Numbers", head, rows, caption)
    if measures.selective:
        yield from _selective(measures.selective)


def words(name: str) -> str:
    """Returns the name of a number as people write it."""
    return name.replace("_", " ").replace("top5", "top-5").replace(" f1", " F1")


def _joined(text):
    """The text with spaces at which no line ends."""
    return text.replace(" ", "\N{NO-BREAK SPACE}")


def _meanings(evaluation) -> Section:
    body = ["<dl>"]
    for name, meaning in evaluation.measures.definitions.items():
        body.append(f"<dt>{escape(words(name))}</dt><dd>{escape(meaning)}</dd>")
    return Section("meanings", "What the numbers mean", [*body, "</dl>"])


def _selective(found) -> Iterable[str]:
    rows = [
        (f"{coverage:.0%}", f"{least:.3f}", f"{100 * accuracy:.2f} %")
        for coverage, least, accuracy in zip(*found.values(), strict=True)
    ]
    yield from table(
        "Selective accuracy",
        ("images answered", "confidence at least", "accuracy of these"),
        rows,
        "If the model answers the images alone for which it is most confident:",
    )


def _calibration(evaluation, pngs) -> Iterable[str]:
    measures = evaluation.measures
    fitted, before = measures.temperature, measures.reliability.expected_error
    caption = (
        "Where a model is calibrated, it is right in 80 % of the answers that it gives with a "
        "confidence of 80 %. The bars show how often it is right; the gaps, how far its confidence "
        "is from that."
    )
    yield from picture(
        pngs["reliability.png"],
        f"Reliability diagram; expected calibration error {before:.2%}",
        caption,
        "Reliability diagram",
    )
    if fitted is None:
        return
    after = fitted.reliability.expected_error
    yield (
        f"<p>The temperature {fitted.value:.4g} minimizes the loss. On images that it was not "
        f"fitted to, the calibration error of {before:.2%} becomes {after:.2%}, and the loss of "
        f"{measures.numbers['loss']:.4f} becomes {fitted.loss:.4f}.</p>"
    )
    if fitted.at_end_of_range:
        yield "<p>The search ended at the end of its range: the number is not to be used.</p>"
    elif command := report.export_command(evaluation):
        yield f"<p>An export with it: <code>{escape(printable(command))}</code></p>"


def _classes(evaluation, pngs) -> Iterable[Section]:
    measures, answers = evaluation.measures, evaluation.answers
    if isinstance(answers, multi_label.Answers):
        body = list(picture(pngs["average_precision.png"], "Average precision of each class"))
    else:
        caption = (
            "Each row holds the images of a class, as fractions; rare confusions are drawn "
            "brighter than in proportion. All counts are in confusion.csv."
        )
        body = list(picture(pngs["confusion.png"], "Confusion matrix", caption))
        names = answers.class_names
        rows = [
            (names[true], names[predicted], f"{images:,}", _of(images, measures, true))
            for true, predicted, images in measures.confused
        ]
        head = ("true class", "predicted", "images", "of the class")
        if rows:
            body += table("Most confused classes", head, rows, "The commonest confusions.")
    yield Section("confusion", "Confusions", body)
    yield Section("classes", "Classes", list(_class_table(measures, answers)))


def _of(images, measures, label):
    return f"{images / max(int(measures.by_class['images'][label]), 1):.1%}"


def _class_table(measures, answers) -> Iterable[str]:
    columns = measures.by_class
    order = np.argsort(np.nan_to_num(columns["f1"], nan=2), kind="stable")
    order = [int(place) for place in order if columns["images"][place]]
    rows = [
        (answers.class_names[place], *(_figure(name, columns[name][place]) for name in columns))
        for place in order[:_MOST_CLASSES]
    ]
    which = "All classes" if len(order) <= _MOST_CLASSES else f"The worst {_MOST_CLASSES} classes"
    caption = f"{which}, the lowest F1 first; per_class.csv has all of them."
    head = ("class", *(name.replace("_", " ") for name in columns))
    yield from table("Classes", head, rows, caption)


def _figure(name, value):
    if name in ("images", "predicted"):
        return f"{int(value):,}"
    if not np.isfinite(value):
        return "-"
    return f"{value:.4f}" if name == "threshold" else _joined(f"{100 * value:.1f} %")


def _cards(name, title, text, shown, evaluation, why_no_maps) -> Section:
    body = [f"<p>{escape(text)}</p>"]
    if why_no_maps and shown:
        body.append(f"<p>There is no Grad-CAM: {escape(why_no_maps)}.</p>")
    elif shown:
        parts = max((each.parts for each in shown), key=len)
        body.append(
            f"<p>From left to right: {escape('; '.join(parts))}. The brighter a place, the more it "
            "speaks for the class (Grad-CAM, by the gradient of the class's logit with respect to "
            "the map that the global pooling reads).</p>"
        )
    if not shown:
        body.append("<p>There are none.</p>")
    body.append('<div class="cards">')
    for each in shown:
        body += _card(each, evaluation)
    body.append("</div>")
    return Section(name, title, body)


def _card(shown: Picture, evaluation) -> Iterable[str]:
    example = shown.example
    said = evaluation.answers.class_names[example.predicted]
    true = ", ".join(example.true) or "none"
    alt = f"{printable(shown.name)}: {printable(said)}; true: {printable(true)}"
    width, height = struct.unpack(">II", shown.png[16:24])
    data = base64.b64encode(shown.png).decode()
    yield "<figure>"
    yield (
        f'<img src="data:image/png;base64,{data}" width="{width}" height="{height}" '
        f'alt="{escape(alt)}">'
    )
    yield (
        f"<figcaption><b>{escape(printable(said))}</b> {example.probability:.1%}, true: "
        f"<b>{escape(printable(true))}</b><br>{escape(printable(shown.name))}</figcaption>"
    )
    yield "</figure>"


def _compared(evaluation) -> Section:
    found, other = evaluation.comparison, evaluation.other
    rows = [
        (
            words(name),
            report.shown(name, found.first.numbers[name]),
            report.shown(name, found.second.numbers[name]),
            *map(_joined, report.shown_difference(name, each)),
        )
        for name, each in found.differences.items()
    ]
    names = [name for name in found.first.numbers if name not in found.differences]
    rows += [
        (
            words(name),
            report.shown(name, found.first.numbers[name]),
            report.shown(name, found.second.numbers[name]),
            report.shown(name, found.second.numbers[name] - found.first.numbers[name]),
            "",
        )
        for name in names
        if name in found.second.numbers
    ]
    test = found.mcnemar
    both = int((evaluation.answers.correct & evaluation.other_answered.answers.correct).sum())
    neither = len(evaluation.answers) - both - test.only_first - test.only_second
    counts = [
        ("first is right", f"{both:,}", f"{test.only_first:,}"),
        ("first is wrong", f"{test.only_second:,}", f"{neither:,}"),
    ]
    head = ("number", "first", "second", "difference", f"{PERCENT} % interval")
    caption = "Intervals draw the same images for both models."
    body = [
        f"<p>The second model is {escape(printable(other.name))}.</p>",
        *table("Two models", head, rows, caption),
        *table(
            "Where they differ",
            ("images", "second is right", "second is wrong"),
            counts,
            f"McNemar's test, {test.test}: p = {test.p_value:.3g}. comparison.csv lists the images "
            "that one model alone gets right.",
        ),
        *_class_differences(evaluation),
    ]
    return Section("comparison", "Two models", body)


def _class_differences(evaluation) -> Iterable[str]:
    found, answers = evaluation.comparison, evaluation.answers
    second = {
        name: place for place, name in enumerate(evaluation.other_answered.answers.class_names)
    }
    # Classes may be in another order; those without names are in the same.
    pairs = [
        (place, second.get(name, place))
        for place, name in enumerate(answers.class_names)
        if found.first.by_class["images"][place]
    ]
    before, after = found.first.by_class["f1"], found.second.by_class["f1"]
    rows = [
        (answers.class_names[one], *(np.nan_to_num(f) for f in (before[one], after[two])))
        for one, two in pairs
    ]
    rows.sort(key=lambda row: -abs(row[2] - row[1]))
    yield from table(
        "Classes of two models",
        ("class", "F1, first", "F1, second", "difference"),
        [
            (name, f"{100 * a:.1f} %", f"{100 * b:.1f} %", f"{100 * (b - a):+.1f} %")
            for name, a, b in rows[:_MOST_ROWS]
        ],
        "Classes by the size of the difference.",
    )


def _left_out(evaluation) -> Section:
    problems = evaluation.problems
    rows = [(printable(name), why) for name, why in list(problems.items())[:_MOST_ROWS]]
    caption = f"{len(problems):,} files could not be read as images and do not count."
    body = list(table("Files left out", ("file", "reason"), rows, caption))
    return Section("left_out", "Files left out", body)
