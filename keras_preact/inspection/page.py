"""The report as a self-contained HTML page, and as a few lines for the console."""

from collections.abc import Iterable, Sequence
from html import escape

import numpy as np

from keras_preact.data.summary import SPLITS, sources_of
from keras_preact.inspection import figures, samples
from keras_preact.inspection.report import Report
from keras_preact.support.page import Html, Section, document, picture, table
from keras_preact.support.text import printable

# Rows of lists, which JSON has in full.
MOST_ROWS = 200
# Classes that the console lists from either end.
_MOST_CONSOLE = 5
_STYLE = """
.sheets { display: flex; flex-wrap: wrap; gap: 0 2rem; }
.sheets > div { min-width: 0; max-width: 100%; }
.sheets .wide img { width: auto; }
h3 { margin-bottom: 0; }
"""


def html(report: Report) -> bytes:
    """Returns the page as UTF-8."""
    sections = [
        Section("suggestions", "Suggestions", list(_suggestions(report))),
        Section(
            "classes", _class_words(report, "Images per {}").capitalize(), list(_classes(report))
        ),
        Section("sampling", "Sampling", list(_sampling(report))),
        Section("sizes", "Sizes", list(_sizes(report))),
        Section("duplicates", "Exact copies", list(_duplicates(report))),
        Section("unreadable", "Unreadable files", list(_unreadable(report))),
        Section("sheets", "Augmentation, class by class", list(_sheets(report))),
    ]
    title = f"Data: {printable(report.source)}"
    return document(title, _facts(report), sections, contents_after=1, style=_STYLE)


def console(report: Report) -> str:
    """Returns the lines that the program prints; loading has listed unreadable files."""
    lines = [report.line]
    names, train = report.dataset.info.class_names, report.counts["train"]
    order = np.argsort(-train, kind="stable")
    shown = [*order] if len(order) <= 2 * _MOST_CONSOLE else [*order[:5], None, *order[-5:]]
    for label in shown:
        if label is None:
            lines.append("  ...")
            continue
        counts = ", ".join(f"{counts[label]:,}" for counts in report.counts.values())
        lines.append(f"  {printable(names[label])}: {counts}")
    lines += [f"- {suggestion}" for suggestion in report.suggestions]
    return "\n".join(lines)


def _facts(report):
    info = report.dataset.info
    counts = {name: len(source) for name, source in sources_of(report.dataset).items()}
    height, width, channels = info.image_shape
    return {
        "data set": info.name,
        "images": ", ".join(f"{count:,} {SPLITS[split]}" for split, count in counts.items()),
        "labels" if info.multi_label else "classes": f"{info.classes:,}",
        "brought to": f"{width}x{height} pixels, {'grey' if channels == 1 else 'colour'}",
        "augmentation": report.augmentation,
        "mean": ", ".join(f"{value:.2f}" for value in info.mean),
        "deviation": ", ".join(f"{value:.2f}" for value in info.std),
    }


def _class_words(report, text):
    return text.format("label" if report.dataset.info.multi_label else "class")


def _suggestions(report) -> Iterable[str]:
    if not report.suggestions:
        yield "<p>None: nothing stands out.</p>"
        return
    yield "<ul>"
    for suggestion in report.suggestions:
        yield f"<li>{escape(suggestion)}</li>"
    yield "</ul>"


def _classes(report) -> Iterable[str]:
    train = report.counts["train"]
    imbalance = "Some have no training image."
    if report.imbalance == 1:
        imbalance = "All have the same number of training images."
    elif report.imbalance:
        ratio = f"{report.imbalance:,.1f} times"
        imbalance = f"The largest has {ratio} the training images of the smallest."
    words = _class_words(report, "images of each {}")
    yield from picture(figures.classes(report), f"{words}, by split", imbalance)
    if report.labels_per_image:
        numbers = sorted(set().union(*report.labels_per_image.values()))
        rows = [
            [number, *(found.get(number, 0) for found in report.labels_per_image.values())]
            for number in numbers
        ]
        head = ["labels", *(SPLITS[split] for split in report.labels_per_image)]
        yield from table("Labels per image", head, rows, "Images by their number of labels.")
    names = report.dataset.info.class_names
    head = [_class_words(report, "{}"), *(SPLITS[split] for split in report.counts)]
    rows = [
        [printable(names[label]), *(f"{counts[label]:,}" for counts in report.counts.values())]
        for label in np.argsort(-train, kind="stable")
    ]
    yield from table("Counts", head, rows, "Largest first.")


def _sampling(report) -> Iterable[str]:
    if report.imbalance == 1:
        yield "<p>All classes are equally frequent with each <code>--sampling</code>.</p>"
        return
    yield (
        "<p>The share of training samples that each class has, with each "
        f"<code>--sampling</code>. This report is of {escape(report.dataset.sampling)}.</p>"
    )
    yield from picture(figures.samplings(report), "share of training samples of each class")


def _sizes(report) -> Iterable[str]:
    sizes = report.sizes
    if not len(sizes.widths):
        yield "<p>No size could be read.</p>"
        return
    few = len(sizes.widths) < sizes.total
    caption = (
        f"Of {len(sizes.widths):,} images, evenly spaced among {sizes.total:,}."
        if few
        else "Of all images."
    )
    if sizes.turned:
        caption += f" Exif metadata turn {sizes.turned:,} of them; sizes are of upright images."
    yield from picture(figures.sizes(report), "widths, heights and aspect ratios", caption)
    found = sizes.to_json()
    rows = [
        [name, *(f"{value:,.4g}" for value in found[name].values())]
        for name in ("width", "height", "aspect")
    ]
    head = ["", "least", "5 % below", "median", "95 % below", "most"]
    yield from table("Quantiles", head, rows, "Sizes in pixels.")
    for title, counts in (("Formats", sizes.kinds), ("Channels", sizes.channels)):
        rows = [[name, f"{count:,}"] for name, count in sorted(counts.items())]
        yield from table(title, [title.lower(), "images"], rows, title)


def _duplicates(report) -> Iterable[str]:
    groups = report.duplicates
    if groups is None:
        yield "<p>Not looked for in this kind of data set.</p>"
        return
    across = sum(group.across_splits for group in groups)
    differ = sum(group.labels_differ for group in groups)
    yield (
        f"<p>{len(groups):,} images have exact copies: {across:,} in more than one split, "
        f"{differ:,} with another label.</p>"
    )
    if not groups:
        return
    ranked = sorted(groups, key=lambda group: (not group.across_splits, not group.labels_differ))
    rows = [
        [
            Html("<br>".join(escape(printable(name)) for name, _, _ in group.images)),
            ", ".join(dict.fromkeys(SPLITS[split] for _, split, _ in group.images)),
            "; ".join(
                dict.fromkeys(printable("|".join(classes)) for _, _, classes in group.images)
            ),
        ]
        for group in ranked[:MOST_ROWS]
    ]
    yield from table("Copies", ["files", "splits", "classes"], rows, _first(len(groups)))


def _unreadable(report) -> Iterable[str]:
    if not report.unreadable:
        yield "<p>None.</p>"
        return
    rows = [[printable(file), why] for file, why in report.unreadable[:MOST_ROWS]]
    caption = f"They are left out. {_first(len(report.unreadable))}"
    yield from table("Unreadable", ["file", "reason"], rows, caption)


def _first(count):
    if count <= MOST_ROWS:
        return f"All {count:,}."
    return f"The first {MOST_ROWS} of {count:,}; report.json has all."


def _sheets(report) -> Iterable[str]:
    classes, shown = report.dataset.info.classes, len(report.sheets)
    yield (
        "<p>Above, images as evaluation sees them; below each, the very image that the first "
        f"epoch of training makes of it with {escape(report.augmentation)}.</p>"
    )
    if shown < classes:
        yield (
            f"<p>{shown:,} of {classes:,} classes, at most {samples.MOST_CLASSES}, evenly spaced "
            "from the class of the fewest training images to that of the most.</p>"
        )
    yield '<div class="sheets">'
    for sheet in report.sheets:
        name = printable(report.dataset.info.class_names[sheet.label])
        yield "<div>"
        yield f"<h3>{escape(name)}</h3>"
        yield from _sheet(sheet, name)
        yield "</div>"
    yield "</div>"


def _sheet(sheet, name) -> Sequence[str]:
    return list(picture(sheet.png, f"{sheet.images} images of {name}, originals and augmented"))
