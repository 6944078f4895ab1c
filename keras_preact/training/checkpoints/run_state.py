"""The progress of a run, saved beside its weights so that it resumes exactly."""

import dataclasses

import numpy as np
import tensorflow as tf

from keras_preact.training.steps.train_step import REPORT

# Names in checkpoints where they differ from the fields, for checkpoints of earlier versions.
_STORED = {"reshuffles": "restarts", "step_metrics": "reports", "best_score": "best_accuracy"}
# Names that checkpoints of earlier versions lack.
LATER = ("best_step",)


@dataclasses.dataclass(frozen=True)
class RunState:
    """The progress of a run after some steps.

    Args:
        step: number of steps taken.
        epoch: number of whole epochs seen.
        step_in_epoch: number of steps since then.
        seed: of the run; with `reshuffles` and `step` it determines all that is random.
        reshuffles: steps at which a rollback drew a new data order.
        best_score: of the best evaluation; see `scores.Scored.score`. -1 before the first.
        best_step: number of steps before that evaluation; -1 before the first, and in checkpoints
            of earlier versions.
        evaluated: whether every evaluation due so far has been made.
        csv_bytes: length of metrics.csv.
        step_metrics: of the steps since the last evaluation, float64 (steps, len(REPORT)).
        replica_statistics: BN statistics of each of several replicas, float32
            (replicas, values).
    """

    step: int = 0
    epoch: int = 0
    step_in_epoch: int = 0
    seed: int = 0
    reshuffles: tuple[int, ...] = ()
    best_score: float = -1.0
    best_step: int = -1
    evaluated: bool = True
    csv_bytes: int = 0
    step_metrics: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros((0, len(REPORT))))
    replica_statistics: np.ndarray = dataclasses.field(
        default_factory=lambda: np.zeros((0, 0), np.float32)
    )

    def to_variables(self) -> dict[str, tf.Variable]:
        """Returns a variable for each field; variables of arrays take any length."""
        variables = {}
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            array = np.array(value, np.int64) if isinstance(value, tuple) else np.array(value)
            shape = [None] * array.ndim
            with tf.device("CPU"):
                variable = tf.Variable(array, shape=shape, trainable=False)
            variables[_STORED.get(field.name, field.name)] = variable
        return variables

    @classmethod
    def from_variables(cls, variables: dict[str, tf.Variable]) -> "RunState":
        """Returns the run state in variables that `to_variables` made, restored or not."""
        values = {}
        for name, variable in variables.items():
            array = variable.numpy()
            values[name] = array if array.ndim == 2 else array.tolist()
        values = {name: values[_STORED.get(name, name)] for name in cls.__dataclass_fields__}
        return cls(**{**values, "reshuffles": tuple(values["reshuffles"])})
