"""The timing loop of every runtime whose runs end when their call returns. Free of torch."""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter_ns


def time_runs(run: Callable[[], object], n: int) -> list[float]:
    """Return the milliseconds of each of `n` runs, after one that is not timed and fills the processor's caches."""
    clock, times_ms = perf_counter_ns, []
    run()
    for _ in range(n):
        start = clock()
        run()
        times_ms.append((clock() - start) / 1e6)
    return times_ms
