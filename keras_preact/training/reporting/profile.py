"""A TensorBoard profile of some steps."""

import tensorflow as tf
from etils import epath


class Profile:
    """Records from the first to the last of profile_steps.

    Args:
        steps: the first and the last step, counted from 1; None to record nothing.
        folder: TensorBoard's, for its tab "Profile".
    """

    def __init__(self, steps: tuple[int, int] | None, folder: epath.PathLike):
        self._first, self._last = steps or (0, 0)
        self._folder = str(folder)
        self._recording = False

    def before(self, step: int) -> None:
        """To be called before a step is taken."""
        if step == self._first:
            tf.profiler.experimental.start(self._folder)
            self._recording = True

    def after(self, step: int) -> None:
        """To be called after a step has been taken."""
        if step >= self._last:
            self.close()

    def close(self) -> None:
        """Writes what has been recorded, where training ends before the last step."""
        if self._recording:
            tf.profiler.experimental.stop()
            self._recording = False
