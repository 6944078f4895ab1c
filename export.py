"""Exports a trained run as a SavedModel for servers; all flags: python export.py --help."""

import os

# Before TensorFlow is imported: hides those of its start-up notices that can be hidden.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

from absl import app

from keras_preact import exporting
from keras_preact.training import flags


def main(_) -> None:
    try:
        exporting.run(exporting.ExportConfig(**flags.given(exporting.ExportConfig)))
    except (ValueError, OSError) as error:
        flags.fail(str(error))
    except exporting.ParityError as error:
        flags.fail(str(error), code=1)
    except KeyboardInterrupt:
        flags.fail("interrupted; nothing has been exported.", code=130)


if __name__ == "__main__":
    flags.define(exporting.ExportConfig)
    app.run(main, flags_parser=flags.parser(__doc__, exporting.ExportConfig))
