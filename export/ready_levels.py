"""Levels that are loaded: the one that serves and, if memory allows, its neighbors, so that a switch takes no time."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Lock
from typing import Generic, TypeVar

T = TypeVar("T")


class ReadyLevels(Generic[T]):
    """Load levels by `load`, and keep the latest; with `neighbors` also those next to it, which a thread loads.

    A neighbor that cannot be loaded is not ready; `load` then raises when it is asked for.
    """

    def __init__(self, load: Callable[[int], T], n_levels: int, *, neighbors: bool) -> None:
        self._load, self._n_levels = load, n_levels
        self._lock = Lock()
        self._latest: int | None = None
        self._ready: dict[int, T] = {}
        self._loader = ThreadPoolExecutor(1, "levels") if neighbors else None

    @property
    def levels(self) -> tuple[int, ...]:
        """The levels that are ready, ascending."""
        with self._lock:
            return tuple(sorted(self._ready))

    def __getitem__(self, level: int) -> T:
        """Return a level, which is loaded now unless it is ready; it is the latest from now on."""
        with self._lock:
            loaded = self._ready.get(level)
        if loaded is None:
            loaded = self._load(level)
        with self._lock:
            self._latest = level
            self._ready = self._ready | {level: loaded} if self._loader else {level: loaded}
        if self._loader:
            self._loader.submit(self._follow, level)
        return loaded

    def close(self) -> None:
        """Release all levels; one that is being loaded is released afterwards."""
        if self._loader:
            self._loader.shutdown(wait=False, cancel_futures=True)
        with self._lock:
            self._latest, self._ready = None, {}

    def _follow(self, level: int) -> None:
        """Release all but a level and its neighbors, then load those; unless another level is the latest by now."""
        near = range(max(0, level - 1), min(self._n_levels, level + 2))
        with self._lock:
            if self._latest == level:
                self._ready = {i: self._ready[i] for i in near if i in self._ready}
        for i in near:
            with self._lock:
                missing = self._latest == level and i not in self._ready
            if missing:
                try:
                    loaded = self._load(i)
                except Exception:  # whatever a runtime raises, the other neighbor can be loaded
                    continue
                with self._lock:
                    if self._latest == level:
                        self._ready[i] = loaded
