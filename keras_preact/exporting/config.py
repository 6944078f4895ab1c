"""What an export is made of: every flag of export.py, checked in one place."""

import dataclasses

from keras_preact.layers.lookup import one_of
from keras_preact.training.config import CHECKPOINTS, option


@dataclasses.dataclass(frozen=True)
class ExportConfig:
    """One export. The fields are export.py's flags; `metadata["help"]` says what they mean.

    Raises:
        ValueError: if run_dir is missing, or a value is outside its rule.
    """

    run_dir: str | None = option("export", "folder of the run to export")
    output_dir: str | None = option("export", "where the export goes; default RUN_DIR/export")
    checkpoint: str = option("export", "which checkpoint to export", "newest", CHECKPOINTS)
    data_dir: str | None = option(
        "export", "where the run's images lie now; default: where they lay in training"
    )

    def __post_init__(self):
        one_of("checkpoint", self.checkpoint, CHECKPOINTS)
        if not self.run_dir:
            raise ValueError("run_dir must be given: the folder of a run that train.py made.")
