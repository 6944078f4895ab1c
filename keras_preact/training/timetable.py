"""After which steps a run logs, measures propagation, evaluates and saves."""

import dataclasses

from keras_preact.training.config import TrainConfig


@dataclasses.dataclass(frozen=True)
class Timetable:
    """What is due after how many steps.

    Args:
        config: of the run.
        train_steps: its last step.
        train_count: training images.
    """

    config: TrainConfig
    train_steps: int
    train_count: int

    def logs(self, done: int) -> bool:
        """Whether a line of the log is due after so many steps."""
        return done % self.config.log_steps == 0 or self.evaluates(done)

    def propagates(self, done: int) -> bool:
        """Whether signal and gradient in each unit are due to be recorded."""
        every = self.config.log_propagation_steps
        return every > 0 and (done % every == 0 or done == self.train_steps)

    def evaluates(self, done: int) -> bool:
        """Whether this step completes the epochs between two evaluations, or the run."""
        return done == self.train_steps or self._evaluations(done) > self._evaluations(done - 1)

    def saves(self, done: int) -> bool:
        """Whether a checkpoint is due."""
        return self.evaluates(done) or done % self.config.checkpoint_steps == 0

    def steps_ahead(self, done: int) -> int:
        """Steps to take at once: at most steps_per_loop, and none beyond what is due next."""
        due = [self.train_steps, self._next_evaluation(done)]
        config = self.config
        intervals = config.log_steps, config.checkpoint_steps, config.log_propagation_steps
        due += [(done // every + 1) * every for every in intervals if every]
        first, last = self.config.profile_steps or (0, 0)
        due += [step for step in (first - 1, last) if step > done]
        return min(self.config.steps_per_loop, min(due) - done)

    def _evaluations(self, done):
        return done * self.config.global_batch_size // self._images

    def _next_evaluation(self, done):
        return -(-(self._evaluations(done) + 1) * self._images // self.config.global_batch_size)

    @property
    def _images(self):
        return self.train_count * self.config.eval_epochs
