"""Trains, resumes or evaluates a residual network; all flags: python train.py --help."""

import os
import shlex
import sys

# Before TensorFlow is imported: hides those of its start-up notices that can be hidden.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

from absl import app

from keras_preact import training
from keras_preact.training import flags, run_folder


def main(_) -> None:
    try:
        config = run_folder.configure(flags.given(training.TrainConfig))
        training.run(config)
    except (ValueError, OSError) as error:
        flags.fail(str(error))
    except training.DivergenceError as error:
        flags.fail(str(error), code=1)
    except training.WorkerLostError as error:
        flags.fail(str(error), code=training.WorkerLostError.exit_code)
    except training.Interrupted as interrupted:
        run_dir = shlex.quote(config.folder)
        print(f"Continue with: {flags.this_python()} train.py --run_dir={run_dir} --resume")
        sys.exit(interrupted.exit_code)
    except KeyboardInterrupt:
        flags.fail("interrupted; nothing new has been saved.", code=130)


if __name__ == "__main__":
    flags.define(training.TrainConfig)
    app.run(main, flags_parser=flags.parser(__doc__, training.TrainConfig))
