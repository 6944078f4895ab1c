"""Trains, resumes or evaluates a residual network."""

import shlex

from keras_preact import training
from keras_preact.support import commands, program
from keras_preact.training import run_folder


def main(given: dict) -> None:
    """Trains as the fields of `TrainConfig` that the user set say."""
    config = run_folder.configure(given)
    try:
        training.run(config, given=set(given))
    except training.Interrupted as interrupted:
        run_dir = shlex.quote(config.folder)
        command = f"{commands.program('train')} --run_dir={run_dir} --resume"
        interrupted.add_note(f"Continue with: {command}")
        raise


def start(command: str | None = None) -> None:
    """Runs the program and ends the process; see `program.start`."""
    unfinished = "nothing new has been saved"
    program.start(main, training.TrainConfig, __doc__, unfinished, command, recipes=True)
