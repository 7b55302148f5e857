"""How long a training waits for its images."""

import os
import time
from collections.abc import Iterable, Iterator

from ofa.data.loaders import Batch

_STEPS, _PERCENT = 10, 20
"""Steps from which on the share of the waiting is told, and how large it must be, in percent."""


class LoaderWait:
    """Measures which share of the steps' time is spent on waiting for batches that `workers` processes load.

    The first batch is not counted, as workers start with it.
    """

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self._n_steps, self._waited_s, self._start = 0, 0.0, 0.0

    def timed(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """Yield batches; the time until one comes is waiting, the time until the next is asked for is not."""
        asked = 0.0
        for batch in batches:
            came = time.perf_counter()
            if self._n_steps == 0:
                self._start = came
            else:
                self._waited_s += came - asked
            self._n_steps += 1
            yield batch
            asked = time.perf_counter()

    def advice(self) -> str:
        """Return what to do, as the end of a message, if much of the time was waiting; otherwise an empty text."""
        if self._n_steps < _STEPS:
            return ""
        percent = 100 * self._waited_s / (time.perf_counter() - self._start)
        if percent < _PERCENT:
            return ""
        advice = "raise data.workers" if self._workers < (os.cpu_count() or 1) else "store smaller images"
        return f", data: {percent:.0f} % of the time, {advice}"
