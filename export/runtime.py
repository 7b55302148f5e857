"""Serving a bundle on a device, by NumPy, Pillow, psutil and its files' runtime: no torch; see `docs/bundle.md`."""

import threading
import time
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from export.bundle import BundledLevel, load_bundle
from export.errors import check_number
from export.machine import is_this_machine
from export.model_files import load_model
from export.policies.battery import Battery, read_battery
from export.policies.policy import BatteryPolicy, Policy
from export.policies.served import Served
from export.preprocess import Pictures, Preprocess
from export.ready_levels import ReadyLevels
from export.session import run, session
from ofa.core.errors import BundleError, DeviceError


@dataclass(frozen=True)
class Prediction:
    """The answer to one request, all of it by one level.

    Attributes:
        labels: the most probable class of each image.
        probabilities: `[n, classes]`, float32.
        level: the level that answered.
        latency_ms: time of the model for the whole request, without preprocessing.
    """

    labels: tuple[str, ...]
    probabilities: NDArray[np.float32]
    level: int
    latency_ms: float


@dataclass(frozen=True)
class _Serving:
    level: int
    model: Callable[[NDArray[np.float32]], NDArray[np.float32]]
    preprocess: Preprocess


class Runtime(AbstractContextManager["Runtime"]):
    """Serve a bundle at the level that a policy decides on; safe to call from many threads.

    The policy decides at the start, then inside `predict` at most every `poll_seconds`, or by `update`. On a
    switch, the new level is loaded and warmed up before it replaces the old one in one assignment; requests that
    have begun finish on the level they began with. Only one level stays loaded, unless `keep_ready` is set.

    The levels are those of one target of the bundle, and numbers of levels are positions in `levels`. Without
    `target`, it is the first one whose description fits this machine and whose level for the current charge runs here,
    or else the first whose level runs here.

    If the battery cannot be read, or a new level cannot be loaded, the runtime keeps serving the current level
    (level 0 at the start) and issues one `RuntimeWarning` until an update succeeds again.

    Args:
        bundle_folder: folder of the bundle, which is checked completely.
        target: name of a target in the bundle.
        policy: decides which level to run; by default, even thresholds of the charge over the target's levels.
        battery: returns a reading; by default, that of this machine.
        threads: of one run.
        poll_seconds: between readings; infinity to read by `update` only.
        keep_ready: whether to load the neighbors of the level that serves as well, in a thread of their own. A switch
            to one of them takes no time, and the runtime takes up to three times the memory.

    Raises:
        BundleError: the bundle is corrupt, its model does not run, it has no such target, or the policy has another
            number of levels.
    """

    def __init__(
        self,
        bundle_folder: str | Path,
        target: str | None = None,
        *,
        policy: Policy | None = None,
        battery: Callable[[], Battery] = read_battery,
        threads: int = 1,
        poll_seconds: float = 10.0,
        keep_ready: bool = False,
    ) -> None:
        check_number("runtime: threads", threads, 1, 1024, whole=True)
        check_number("runtime: poll_seconds", poll_seconds, 0, float("inf"))
        self.bundle = load_bundle(bundle_folder)
        self._battery, self._threads, self._poll_seconds = battery, threads, poll_seconds
        self._updating = threading.Lock()
        self._warned = False
        self._policy_state: Any
        self._served: Served
        self._serving: _Serving | None = self._start(target, policy, keep_ready)
        self._next_poll = time.monotonic() + poll_seconds

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def level(self) -> int:
        """The level that serves the next request."""
        return self._current().level

    @property
    def ready_levels(self) -> tuple[int, ...]:
        """The levels that are loaded: the one that serves and, with `keep_ready`, its neighbors once they are."""
        return self._ready.levels

    def predict(self, images: Pictures) -> Prediction:
        """Classify one or more images of any size, all by the same level.

        `export.preprocess.Preprocess` lists the arrays and PIL images that are allowed; others are a DataError.
        """
        if self._due() and self._updating.acquire(blocking=False):
            try:
                if self._due():  # another thread may have updated meanwhile
                    self._update()
            finally:
                self._updating.release()
        serving = self._current()
        batch = serving.preprocess(images)
        start = time.perf_counter()
        logits = serving.model(batch)
        latency_ms = (time.perf_counter() - start) * 1e3
        self._served.add(serving.level, len(batch), latency_ms)
        probabilities = softmax(logits)
        labels = tuple(self.bundle.labels[top] for top in probabilities.argmax(axis=1))
        return Prediction(labels, probabilities, serving.level, latency_ms)

    def update(self) -> int:
        """Read the battery now, switch if the policy says so, and return the level that serves from now on."""
        with self._updating:
            self._update()
        return self.level

    def close(self) -> None:
        """Release the models. Requests that have begun finish; later calls raise BundleError."""
        with self._updating:
            self._serving = None
            self._ready.close()

    def _current(self) -> _Serving:
        serving = self._serving
        if serving is None:
            raise BundleError(f"the runtime of {self.bundle.folder} is closed; create another Runtime")
        return serving

    def _due(self) -> bool:
        return time.monotonic() >= self._next_poll

    def _update(self) -> None:
        current = self._current().level
        self._next_poll = time.monotonic() + self._poll_seconds
        try:
            level = self._decide()
            if level != current:
                self._serving = self._ready[level]
            self._warned = False
        except Exception as error:  # whatever a driver raises, requests must still be served
            self._warn_once(error, current)

    def _decide(self) -> int:
        seen = self._served.observe(boot_time_s(), self._battery())
        level, self._policy_state = self.policy.decide(self._policy_state, seen)
        return level

    def _first_level(self) -> int:
        try:
            return self._decide()
        except Exception as error:  # as in _update
            self._warn_once(error, 0)
            return 0

    def _warn_once(self, error: Exception, level: int) -> None:
        if not self._warned:
            self._warned = True
            warnings.warn(f"keeps serving level {level}, the update failed: {error!r}", RuntimeWarning, 3)

    def _start(self, target: str | None, policy: Policy | None, keep_ready: bool) -> _Serving:
        """Choose the target, and load the level to begin with."""
        targets = self.bundle.targets
        fitting_first = sorted(targets, key=lambda name: not is_this_machine(targets[name]))
        errors = []
        for name in fitting_first if target is None else [target]:
            self.target, self.levels = name, self.bundle.levels_of(name)
            n_levels = len(self.levels)
            self.policy: Policy = policy or BatteryPolicy.even(n_levels)
            if self.policy.n_levels != n_levels:
                mismatch = f"the policy is for {self.policy.n_levels} levels, the target {name} has {n_levels}"
                raise BundleError(f"{mismatch}; make the policy from the levels of the target")
            self._policy_state, self._served = None, Served(n_levels)
            self._ready = ReadyLevels(self._load, n_levels, neighbors=keep_ready)
            try:
                return self._ready[self._first_level()]
            except BundleError as error:
                errors.append(error)
        raise errors[0]

    def _load(self, level: int) -> _Serving:
        """Load a level and run it once, so that the first request does not pay for set-up."""
        preprocess = self.levels[level].preprocess
        side, n_labels = preprocess.resolution, len(self.bundle.labels)
        name = f"level {level} of {self.bundle.folder}"
        try:
            model = self._model(self.levels[level])
            logits = model(np.zeros((1, preprocess.in_channels, side, side), dtype=np.float32))
        except DeviceError as error:
            raise BundleError(f"{name} does not run here: {error}") from error
        if logits.shape != (1, n_labels):
            raise BundleError(f"{name} returns {logits.shape[1:]} logits for {n_labels} labels; make the bundle again")
        return _Serving(level, model, preprocess)

    def _model(self, level: BundledLevel) -> Callable[[NDArray[np.float32]], NDArray[np.float32]]:
        content = self.bundle.read_model(level)  # its checksum, too
        if level.format in ("onnx", "web"):
            return partial(run, session(content, self._threads))
        return load_model(level.format, self.bundle.folder / level.file, self._threads)


def boot_time_s() -> float:
    """Return the seconds since the machine started, those in which it slept included if the system counts them."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()


def softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the probabilities of logits `[n, classes]`."""
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    probabilities: NDArray[np.float32] = exponentials / exponentials.sum(axis=1, keepdims=True)
    return probabilities
