"""Trains, resumes or evaluates a residual network; all flags: python train.py --help."""

import shlex

from keras_preact import training
from keras_preact.support import commands, program
from keras_preact.training import run_folder


def main(given: dict) -> None:
    config = run_folder.configure(given)
    try:
        training.run(config)
    except training.Interrupted as interrupted:
        run_dir = shlex.quote(config.folder)
        command = f"{commands.script('train.py')} --run_dir={run_dir} --resume"
        interrupted.add_note(f"Continue with: {command}")
        raise


if __name__ == "__main__":
    program.start(main, training.TrainConfig, __doc__, "nothing new has been saved")
