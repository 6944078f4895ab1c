"""Shows the progress of a run: a bar on a terminal, lines elsewhere."""

import datetime
import math
import time

import numpy as np

from keras_preact.support.console import bar, say
from keras_preact.training.steps.step_metrics import Means


class Progress:
    """Shows each log interval and measures throughput.

    Args:
        start_step: number of steps already taken.
        train_steps: number of the last step.
        global_batch_size: images in a step.
        quiet: shows nothing.
        accuracy: what the accuracy is called.
    """

    def __init__(
        self,
        start_step: int,
        train_steps: int,
        global_batch_size: int,
        quiet: bool = False,
        accuracy: str = "accuracy",
    ):
        self._bar = bar(
            total=train_steps,
            initial=start_step,
            disable=quiet,
            postfix="compiling the first step",
            # A narrow bar: the line fits into 80 characters.
            bar_format="{percentage:3.0f}%|{bar:5}| {n_fmt}/{total_fmt}{postfix}",
        )
        self._train_steps, self._accuracy = train_steps, accuracy
        self._quiet = quiet
        self._batch_size = global_batch_size
        self._images = 0
        self._since = time.perf_counter()
        self._past_images, self._past_seconds = 0, 0.0

    def advance(self, steps: int) -> None:
        """Counts further steps."""
        self._bar.update(steps)
        self._images += steps * self._batch_size

    def restart_clock(self) -> None:
        """Excludes the time since the last interval from throughput."""
        self._images = 0
        self._since = time.perf_counter()

    def interval(
        self, step: int, means: Means, learning_rate: float, show: bool = True
    ) -> tuple[float, float]:
        """Shows the steps since the last interval.

        Returns:
            Images per second, and the fraction of the time spent waiting for input. Both are
            0 if no step was timed since `restart_clock`; the fraction is NaN if it was not
            measured.
        """
        seconds = time.perf_counter() - self._since
        rate = self._images / seconds
        # Steps before the last `restart_clock` are not timed.
        steps = self._images / self._batch_size
        waiting = np.minimum(1.0, means.wait_seconds / means.steps * steps / seconds)
        self._past_images += self._images
        self._past_seconds += seconds
        self.restart_clock()
        left = (self._train_steps - step) * self._batch_size / rate if rate else 0
        eta = datetime.timedelta(seconds=round(left))
        share = "" if math.isnan(waiting) else f", {waiting:.0%} waiting for input"
        speed = f", {rate:,.0f} images/s{share}, {eta} left" if rate else ""
        skipped = f", {means.skipped_steps} steps overflowed" if means.skipped_steps else ""
        if not self._bar.disable:
            self._bar.set_postfix_str(
                f"loss {means.loss:.4f} acc {means.accuracy:.1%} lr {learning_rate:.4g} "
                f"{rate:,.0f} img/s {eta} left"
            )
        elif show and not self._quiet:
            say(
                f"step {step:,} of {self._train_steps:,}: loss {means.loss:.4f}, "
                f"{self._accuracy} {means.accuracy:.2%}, learning rate {learning_rate:.4g}"
                f"{speed}{skipped}"
            )
        return rate, waiting

    def mean_rate(self) -> float:
        """Returns images per second over all intervals since the last call; 0 without any."""
        rate = self._past_images / self._past_seconds if self._past_images else 0.0
        self._past_images, self._past_seconds = 0, 0.0
        return rate

    def set_back(self, step: int) -> None:
        """Sets the bar back to an earlier step."""
        self._bar.n = step
        self._bar.refresh()
        self.restart_clock()

    def close(self) -> None:
        self._bar.close()
