"""Evaluates a model and writes a report: evaluate --model=MODEL --data_dir=FOLDER --output=report.

Ends with 0; with 3 if some files could not be read as images, which the report leaves out; and
otherwise with an error.
"""

from keras_preact import evaluation
from keras_preact.support import program


def main(given: dict) -> None:
    """Evaluates as the fields of `EvaluateConfig` that the user set say."""
    evaluation.run(evaluation.EvaluateConfig(**given))


def start(command: str | None = None) -> None:
    """Runs the program and ends the process; see `program.start`."""
    unfinished = "no report has been written"
    program.start(main, evaluation.EvaluateConfig, __doc__, unfinished, command=command)
