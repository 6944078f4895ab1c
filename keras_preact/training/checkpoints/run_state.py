"""Where a run stands, beside its weights: what a checkpoint holds so that nothing is repeated."""

import dataclasses

import numpy as np
import tensorflow as tf

from keras_preact.training.steps.train_step import REPORT

# Names in checkpoints that differ from the fields here, as earlier versions wrote them.
_STORED = {"reshuffles": "restarts", "step_metrics": "reports"}


@dataclasses.dataclass(frozen=True)
class RunState:
    """Where a run stands after some steps.

    Args:
        step: steps taken.
        epoch: whole epochs seen.
        step_in_epoch: steps begun since then.
        seed: of the run: with `reshuffles` and the step it decides on all that is random.
        reshuffles: the steps at which the data order was drawn anew, after divergence.
        best_accuracy: of all evaluations; -1 before the first.
        evaluated: whether the evaluation due after this step, if one is, has been made.
        csv_bytes: length of metrics.csv.
        step_metrics: of the steps since the last evaluation, float64 (steps, len(REPORT)).
        replica_statistics: the statistics of BN of each replica, where there are
            several: float32 (replicas, values).
    """

    step: int = 0
    epoch: int = 0
    step_in_epoch: int = 0
    seed: int = 0
    reshuffles: tuple[int, ...] = ()
    best_accuracy: float = -1.0
    evaluated: bool = True
    csv_bytes: int = 0
    step_metrics: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros((0, len(REPORT))))
    replica_statistics: np.ndarray = dataclasses.field(
        default_factory=lambda: np.zeros((0, 0), np.float32)
    )

    def to_variables(self) -> dict[str, tf.Variable]:
        """A variable for each field; those of arrays take any length."""
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
        """The run_state that `to_variables` gave, or that was restored since."""
        values = {}
        for name, variable in variables.items():
            array = variable.numpy()
            values[name] = array if array.ndim == 2 else array.tolist()
        values = {name: values[_STORED.get(name, name)] for name in cls.__dataclass_fields__}
        return cls(**{**values, "reshuffles": tuple(values["reshuffles"])})
