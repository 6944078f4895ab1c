"""Measures how signal and gradient propagate, and writes a page of pictures and findings.

python -m keras_preact.analysis [STUDY] [FLAGS]
"""

import sys

from keras_preact.studies.config import STUDIES, AnalysisConfig
from keras_preact.studies.run import run
from keras_preact.support import program

_STUDIES = "\n".join(f"  {name}: {text}" for name, text in STUDIES.items())
DESCRIPTION = f"{__doc__}\nstudies:\n{_STUDIES}"


def main(given: dict) -> None:
    words = given.pop("words", ())
    run(AnalysisConfig(**given), words, sys.argv[1:])


def start(command: str = "python -m keras_preact.analysis") -> None:
    """Runs the program and ends the process; see `program.start`."""
    program.start(main, AnalysisConfig, DESCRIPTION, "nothing has been written", command, "words")


if __name__ == "__main__":
    start()
