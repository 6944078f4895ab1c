"""Shows a data set before training: data SOURCE, where SOURCE is a folder of images, a CSV file,
or the name of a data set.

Writes report.html and report.json to --output: images per class and split, sizes, exact copies,
unreadable files, and images of each class beside those that training makes of them.
"""

from keras_preact import inspection
from keras_preact.support import program

_WORDS = "source"


def main(given: dict) -> None:
    """Reports as the fields of `InspectionConfig` that the user set, and the source, say."""
    words = given.pop(_WORDS, ())
    inspection.run(inspection.InspectionConfig(**given), words)


def start(command: str | None = None) -> None:
    """Runs the program and ends the process; see `program.start`."""
    unfinished = "no report has been written"
    program.start(
        main, inspection.InspectionConfig, __doc__, unfinished, command=command, words=_WORDS
    )
