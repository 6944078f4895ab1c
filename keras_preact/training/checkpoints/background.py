"""Saving in the background: one job at a time, tried twice."""

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import tensorflow as tf

from keras_preact.data.reading import one_line
from keras_preact.support.errors import SaveError

# Pause before the second attempt: somebody may free space meanwhile.
RETRY_SECONDS = 10


class Saving:
    """Runs jobs that save a run, one after the other, in a thread.

    A job that fails is announced and tried once more, so it must be repeatable. If it fails
    again, the next call of any method raises SaveError.

    Args:
        tell: takes a line for the user.
        retry_seconds: pause before the second attempt.
    """

    def __init__(self, tell: Callable[[str], None], retry_seconds: float = RETRY_SECONDS):
        self._tell, self._retry_seconds = tell, retry_seconds
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="saving")
        self._job: Future | None = None

    def start(self, what: str, job: Callable[[], None]) -> None:
        """Waits for the last job, then starts another.

        Args:
            what: name of what is saved, as in "step 400".
            job: takes no arguments; may be called twice.

        Raises:
            SaveError: if the last job failed.
        """
        self.wait()
        self._job = self._pool.submit(self._run, what, job)

    def wait(self) -> None:
        """Waits for the last job.

        Raises:
            SaveError: if it failed.
        """
        if self._job is not None:
            job, self._job = self._job, None
            job.result()

    def check(self) -> None:
        """Raises SaveError if the last job has failed; does not wait."""
        if self._job is not None and self._job.done():
            self.wait()

    def _run(self, what, job):
        try:
            return job()
        except (OSError, tf.errors.OpError) as error:
            self._tell(
                f"Could not save {what}: {reason(error)}. Earlier checkpoints are unharmed. "
                f"Trying once more in {self._retry_seconds:g} seconds."
            )
        time.sleep(self._retry_seconds)
        try:
            job()
        except (OSError, tf.errors.OpError) as error:
            raise SaveError(
                f"Could not save {what}, twice in a row: {reason(error)}. Earlier checkpoints are "
                "unharmed: make room, and continue with --resume."
            ) from error
        self._tell(f"Saved {what} at the second attempt.")


def reason(error: OSError | tf.errors.OpError) -> str:
    """Returns the reason of a failed write, in one line."""
    if isinstance(error, tf.errors.OpError):
        # "{{node ...}} FILE; No space left on device [Op:SaveV2]"
        return one_line(error).rpartition("; ")[2]
    return error.strerror or str(error)
