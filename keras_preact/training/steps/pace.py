"""How many steps to take in one launch."""

# Signals are heeded, and progress is shown, between launches.
MOST_SECONDS = 2.0


class Pace:
    """The number of steps of the next launch: what fits into MOST_SECONDS.

    Args:
        most: number of steps, at most.
        fixed: number of steps of every launch; None to follow their time.

    Attributes:
        next: number of steps, at least 1.
    """

    def __init__(self, most: int, fixed: int | None = None):
        self._most, self._fixed = most, fixed
        self.next = min(most, fixed or 1)

    def update(self, seconds_per_step: float) -> None:
        """Learns how long a step takes; 0 if that is not known yet."""
        if self._fixed is None and seconds_per_step > 0:
            self.next = max(1, min(self._most, int(MOST_SECONDS / seconds_per_step)))
