"""Predicts the classes of image files: predict --model=MODEL --source=SOURCE --output=x.csv, or
predict --model=MODEL IMAGE...

Ends with 0; with 3 if some files could not be read as images, whose rows say why; with 74 if the
output cannot be written; and otherwise with an error.
"""

from keras_preact import prediction
from keras_preact.support import program

_WORDS = "images"


def main(given: dict) -> None:
    """Predicts as the fields of `PredictConfig` that the user set, and the words beside, say."""
    images = given.pop(_WORDS, ())
    prediction.run(prediction.PredictConfig(**given), images)


def start(command: str | None = None) -> None:
    """Runs the program and ends the process; see `program.start`."""
    unfinished = "rows in --output are whole, and the same command continues after them"
    program.start(
        main, prediction.PredictConfig, __doc__, unfinished, command=command, words=_WORDS
    )
