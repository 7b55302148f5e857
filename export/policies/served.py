"""What a runtime has served, as its policy sees it."""

import statistics
import threading
from collections import deque

from export.policies.battery import Battery
from export.policies.policy import Observation


class Served:
    """Count images and collect latencies of the requests served; safe to use from many threads."""

    def __init__(self, n_levels: int) -> None:
        self._lock = threading.Lock()
        self._images = [0] * n_levels
        self._level: int | None = None
        self._latencies_ms: deque[float] = deque(maxlen=1000)

    def add(self, level: int, n_images: int, latency_ms: float) -> None:
        """Add one request. Latencies of another level than the last one's are forgotten."""
        with self._lock:
            self._images[level] += n_images
            if level != self._level:
                self._level = level
                self._latencies_ms.clear()
            self._latencies_ms.append(latency_ms)

    def observe(self, time_s: float, battery: Battery) -> Observation:
        """Return what a policy sees now, and start to collect latencies anew."""
        with self._lock:
            latency_ms = statistics.median(self._latencies_ms) if self._latencies_ms else None
            self._latencies_ms.clear()
            return Observation(time_s, battery, tuple(self._images), self._level, latency_ms)
