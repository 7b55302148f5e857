"""Serving a bundle on a device: the battery chooses the level, requests never wait for a switch.

Needs NumPy, Pillow, ONNX Runtime and psutil; no torch.
"""

from __future__ import annotations

import threading
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from export.bundle import load_bundle
from export.policy import Battery, BatteryPolicy, psutil_battery
from export.preprocess import Pictures, Preprocess
from export.session import INPUT, OUTPUT, session
from ofa.core.errors import BundleError


@dataclass(frozen=True)
class Prediction:
    """The answer to one request, all of it by one level.

    Attributes:
        labels: the most probable class of each image.
        probabilities: `[n, classes]`, float32.
        level: which level answered.
        latency_ms: how long the model ran for the whole request, preprocessing left out.
    """

    labels: tuple[str, ...]
    probabilities: NDArray[np.float32]
    level: int
    latency_ms: float


@dataclass(frozen=True)
class _Serving:
    level: int
    session: ort.InferenceSession
    preprocess: Preprocess


class Runtime:
    """Serves a bundle; safe to call from many threads.

    The battery is read at the start, then inside `predict` at most every `poll_seconds`, or by `update`.
    On a switch the new level is loaded and warmed up first and then put in place in one assignment;
    requests that have begun finish on the level they began with. Only one level stays loaded.

    If the battery cannot be read, reads as nonsense, or a new level cannot be loaded, the current level goes
    on serving (level 0 at the start) and a `RuntimeWarning` says so, once until things work again.

    Args:
        bundle_folder: see `export.bundle`; all of it is checked here.
        policy: by default even thresholds over the bundle's levels.
        battery: gives a reading.
        threads: of one run.
        poll_seconds: between readings.

    Raises:
        BundleError: the bundle is corrupt, or the policy is for another number of levels.
    """

    def __init__(
        self,
        bundle_folder: Path,
        policy: BatteryPolicy | None = None,
        battery: Callable[[], Battery] = psutil_battery,
        threads: int = 1,
        poll_seconds: float = 10.0,
    ) -> None:
        self.bundle = load_bundle(bundle_folder)
        n_levels = len(self.bundle.levels)
        self.policy = policy or BatteryPolicy.even(n_levels)
        if self.policy.n_levels != n_levels:
            raise BundleError(
                f"the policy is for {self.policy.n_levels} levels, the bundle has {n_levels}; "
                f"give {n_levels - 1} thresholds"
            )
        self._battery, self._threads, self._poll_seconds = battery, threads, poll_seconds
        self._updating = threading.Lock()
        self._warned = False
        self._serving: _Serving | None = self._load(self._first_level())
        self._next_poll = time.monotonic() + poll_seconds

    def __enter__(self) -> Runtime:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def level(self) -> int:
        """The level that serves the next request.

        Raises:
            BundleError: the runtime is closed.
        """
        return self._current().level

    def predict(self, images: Pictures) -> Prediction:
        """Classifies one or more images, all by the same level.

        Args:
            images: see `export.preprocess.Preprocess`.

        Raises:
            BundleError: the runtime is closed.
            DataError: images that the model cannot take.
        """
        if self._due() and self._updating.acquire(blocking=False):
            try:
                if self._due():  # another thread may have been faster
                    self._update()
            finally:
                self._updating.release()
        serving = self._current()
        batch = serving.preprocess(images)
        start = time.perf_counter()
        (logits,) = serving.session.run([OUTPUT], {INPUT: batch})
        latency_ms = (time.perf_counter() - start) * 1e3
        probabilities = softmax(logits)
        labels = tuple(self.bundle.labels[top] for top in probabilities.argmax(axis=1))
        return Prediction(labels, probabilities, serving.level, latency_ms)

    def update(self) -> int:
        """Reads the battery now and switches if need be; waits if another thread is at it.

        Returns:
            The level that serves from now on.

        Raises:
            BundleError: the runtime is closed.
        """
        with self._updating:
            self._update()
        return self.level

    def close(self) -> None:
        """Lets the model go; requests that have begun finish, later ones are refused."""
        with self._updating:
            self._serving = None

    def _current(self) -> _Serving:
        serving = self._serving
        if serving is None:
            raise BundleError(f"the runtime of {self.bundle.folder} is closed; make another Runtime")
        return serving

    def _due(self) -> bool:
        return time.monotonic() >= self._next_poll

    def _update(self) -> None:
        current = self._current().level
        self._next_poll = time.monotonic() + self._poll_seconds
        try:
            wanted = self._wanted(current)
            if wanted != current:
                self._serving = self._load(wanted)
        except Exception as error:  # whatever a driver raises, requests must still be served
            self._warn_once(error, current)
        else:
            self._warned = False

    def _wanted(self, current: int | None) -> int:
        reading = self._battery()
        return self.policy.level(reading.percent, current, reading.charging)

    def _first_level(self) -> int:
        try:
            return self._wanted(None)
        except Exception as error:  # as in _update
            self._warn_once(error, 0)
            return 0

    def _warn_once(self, error: Exception, level: int) -> None:
        if not self._warned:
            self._warned = True
            warnings.warn(f"level {level} goes on serving, no new one was chosen: {error!r}", RuntimeWarning, 3)

    def _load(self, level: int) -> _Serving:
        """A level ready to serve, run once so that the first request does not pay for set-up."""
        preprocess = self.bundle.levels[level].preprocess
        side, n_labels = preprocess.resolution, len(self.bundle.labels)
        model = self.bundle.read_model(level)
        try:
            loaded = session(model, self._threads)
            images = np.zeros((1, preprocess.in_channels, side, side), dtype=np.float32)
            (logits,) = loaded.run([OUTPUT], {INPUT: images})
        except Exception as error:  # ONNX Runtime's errors have no base of their own
            raise BundleError(f"level {level} of {self.bundle.folder} does not run here: {error}") from error
        if logits.shape != (1, n_labels):
            raise BundleError(
                f"level {level} of {self.bundle.folder} gives {logits.shape[1:]} logits for {n_labels} labels; "
                "make the bundle again"
            )
        return _Serving(level, loaded, preprocess)


def softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Probabilities of logits `[n, classes]`."""
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    probabilities: NDArray[np.float32] = powers / powers.sum(axis=1, keepdims=True)
    return probabilities
