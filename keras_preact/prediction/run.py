"""One pass over image files from its configuration; the program predict calls `run`."""

import collections
import os
import sys
import time
from collections.abc import Sequence

from keras_preact.data.sources import spread
from keras_preact.exporting.formats import preprocessing_record
from keras_preact.prediction import answers, contact_sheet, loading, output, rows, sources
from keras_preact.prediction.answers import Prediction
from keras_preact.prediction.config import PredictConfig
from keras_preact.prediction.loading import Classifier
from keras_preact.support import console
from keras_preact.support.console import say
from keras_preact.support.errors import RunError, SaveError
from keras_preact.support.text import aligned, printable

# Classes that the summary lists.
_MOST_CLASSES = 20


class UnreadableFilesError(RunError):
    """Some files could not be read as images; all others have their answers."""

    exit_code = 3


def run(
    config: PredictConfig, images: Sequence[str] = (), classifier: Classifier | None = None
) -> None:
    """Predicts the classes of image files, and writes or prints a row for each.

    Args:
        config: of the pass.
        images: paths of image files, in place of config.source.
        classifier: config.model, where it has been loaded already.

    Raises:
        ValueError: if the model, the source or the output cannot be used.
        UnreadableFilesError: at the end, if some files could not be read.
        SaveError: if the lines cannot be printed.
        OSError: if the output cannot be written.
    """
    files = _files(config, images)
    part = config.part(len(files))
    if files.skipped:
        left_out = f"Left out {files.skipped:,} files whose names are not those of images."
        print(left_out, file=None if config.output else sys.stderr)
    if config.output:
        output.check(config.output)
    if config.contact_sheet:
        contact_sheet.check(config.contact_sheet)
    classifier = classifier or _load(config)
    tally = _Tally(part)
    if config.output:
        _write(config, classifier, files, part, tally)
    else:
        _print(config, classifier, files, part, tally)
    if config.contact_sheet and tally.chosen:
        contact_sheet.write(config.contact_sheet, files, tally.chosen)
    if tally.unreadable:
        where = ": the column error says why" if config.output else ""
        raise UnreadableFilesError(
            f"{tally.unreadable:,} of {tally.count:,} files could not be read as images{where}."
        )


def _load(config):
    given = config.preprocessing and preprocessing_record.read(config.preprocessing)
    return loading.load(config.model, checkpoint=config.checkpoint, preprocessing=given or None)


def _files(config, images):
    if bool(config.source) == bool(images):
        raise ValueError(
            "Either source must be given, or image files beside the flags. "
            f"Received: source={config.source!r} and {len(images)} files"
        )
    return sources.find(config.source) if config.source else sources.named(images)


class _Tally:
    """Counts predictions, and keeps those of the contact sheet."""

    def __init__(self, part):
        self.count, self.unreadable, self.classes = 0, 0, collections.Counter()
        self.chosen: list[tuple[int, Prediction]] = []
        self._wanted = {part[place] for place in spread(len(part), contact_sheet.MOST_IMAGES)}

    def add(self, index: int, prediction: Prediction) -> None:
        self.count += 1
        if prediction.error is not None:
            self.unreadable += 1
        elif prediction.classes:
            self.classes[prediction.classes[0]] += 1
        if index in self._wanted:
            self.chosen.append((index, prediction))


def _write(config, classifier, files, part, tally):
    top_k = min(config.top_k, len(classifier.class_names))
    choice = answers.Choice(top_k, config.threshold)
    record = output.Record(
        config.model, classifier.digest(), top_k, config.shard, threshold=config.threshold
    )
    form = rows.by_name(config.output, top_k)
    with output.opened(config.output, record, form, files, part, tally.add) as file:
        if before := file.count:
            say(f"{config.output} has {before:,} of {len(part):,} rows already.")
        missing, began = part[before:], time.perf_counter()
        with console.counting("Predicting", len(missing)) as advance:
            found = answers.answer(classifier, files, missing, choice, config.batch_size)
            for index, predictions in _counted(found, missing.start):
                file.append(predictions)
                for place, prediction in enumerate(predictions, index):
                    tally.add(place, prediction)
                advance(len(predictions))
        seconds = time.perf_counter() - began
    say(_summary(config.output, tally, len(missing) / seconds if missing else None))


def _counted(batches, index):
    """Yields (index of the first, predictions) of each batch."""
    for predictions in batches:
        yield index, predictions
        index += len(predictions)


def _summary(path, tally, images_per_second):
    speed = f", {images_per_second:,.0f} images/s" if images_per_second else ""
    lines = [f"{tally.count:,} files, {tally.unreadable:,} unreadable{speed}: {path}"]
    most = tally.classes.most_common(_MOST_CLASSES)
    if most:
        counts = [(printable(name), f"{count:,}") for name, count in most]
        lines.append(aligned(("class", "files"), counts, numbers_from=1))
    if more := len(tally.classes) - len(most):
        lines.append(f"  and {more:,} more classes")
    return "\n".join(lines)


def _print(config, classifier, files, part, tally):
    """Prints a line for each file as its batch is computed; a reader that leaves ends it."""
    choice = answers.Choice(config.top_k, config.threshold)
    found = answers.answer(classifier, files, part, choice, config.batch_size)
    stream = console.breakable_stdout()
    try:
        for index, predictions in _counted(found, part.start):
            for place, prediction in enumerate(predictions, index):
                tally.add(place, prediction)
                stream.write(f"{_line(prediction)}\n")
            stream.flush()
    except BrokenPipeError:
        _drop(stream)
    except OSError as error:
        _drop(stream)
        raise SaveError(f"the output cannot be written: {error.strerror}") from error


def _line(prediction):
    if prediction.error is not None:
        return printable(f"{prediction.file}: unreadable: {prediction.error}")
    pairs = zip(prediction.classes, prediction.scores, strict=True)
    return printable(
        f"{prediction.file}: " + ", ".join(f"{name} {score:.1%}" for name, score in pairs)
    )


def _drop(stream):
    """Discards what a stream still holds, which would fail again when Python ends."""
    descriptor = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(descriptor, stream.fileno())
        sys.stdout.flush()
    except (OSError, ValueError):
        pass
    finally:
        os.close(descriptor)
