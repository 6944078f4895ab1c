"""Telling the user how a run is going: a bar on a terminal, plain lines elsewhere."""

import datetime
import sys
import time

from tqdm import tqdm


class Progress:
    """Shows each log interval, counts training time, and prints lines beside the bar.

    Args:
        start_step: the step that training starts or goes on from.
        train_steps: the step it ends at.
        global_batch_size: images in a step.
    """

    def __init__(self, start_step: int, train_steps: int, global_batch_size: int):
        self._bar = tqdm(
            total=train_steps,
            initial=start_step,
            dynamic_ncols=True,
            disable=not sys.stderr.isatty(),
            # Narrow, so that the figures fit on a line of 80 characters.
            bar_format="{percentage:3.0f}%|{bar:10}| {n_fmt}/{total_fmt}{postfix}",
        )
        self._train_steps = train_steps
        self._batch_size = global_batch_size
        self._images = 0
        self._since = time.perf_counter()
        self._past_images, self._past_seconds = 0, 0.0

    def advance(self) -> None:
        """One more step has been taken."""
        self._bar.update()
        self._images += self._batch_size

    def restart_clock(self) -> None:
        """What has been done since the last interval was not training, or not typical of it."""
        self._images = 0
        self._since = time.perf_counter()

    def interval(
        self, step: int, loss: float, accuracy: float, learning_rate: float, show: bool = True
    ) -> float:
        """Shows the steps since the last interval, and returns their images per second."""
        seconds = time.perf_counter() - self._since
        rate = self._images / seconds
        self._past_images += self._images
        self._past_seconds += seconds
        self.restart_clock()
        left = (self._train_steps - step) * self._batch_size / rate if rate else 0
        eta = datetime.timedelta(seconds=round(left))
        if not self._bar.disable:
            self._bar.set_postfix_str(
                f"loss {loss:.4f} acc {accuracy:.1%} lr {learning_rate:.4g} {rate:,.0f} img/s {eta}"
            )
        elif show:
            self.line(
                f"step {step:,} of {self._train_steps:,}: loss {loss:.4f}, "
                f"accuracy {accuracy:.2%}, learning rate {learning_rate:.4g}, "
                f"{rate:,.0f} images/s, {eta} left"
            )
        return rate

    def mean_rate(self) -> float:
        """Images per second over the intervals since the last call; 0 where there were none."""
        rate = self._past_images / self._past_seconds if self._past_images else 0.0
        self._past_images, self._past_seconds = 0, 0.0
        return rate

    def line(self, text: str) -> None:
        """Prints a line that stays."""
        tqdm.write(text, file=sys.stdout)
        sys.stdout.flush()

    def close(self) -> None:
        self._bar.close()
