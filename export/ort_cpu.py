"""The device `ort-cpu`: ONNX Runtime on this machine's processor, float32."""

from __future__ import annotations

import os
import platform
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import torch
from numpy.typing import NDArray
from torch import nn

from export.onnx import to_onnx
from export.session import INPUT, session
from ofa.device import Timing
from ofa.errors import DeviceError

_WARMUP_RUNS = 5


class OrtCpu:
    """Measures models with ONNX Runtime, as they will run once deployed; implements `ofa.device.Device`.

    Every round visits all models in a new random order and times a short burst of runs of each, so a drift
    of the machine (clock speed, other programs) falls on all models alike. The first run of a burst is not
    timed: it brings the model back into the processor's caches. Each timed run is one plain
    `InferenceSession.run`, whose own cost (some microseconds) is part of what is reported.

    Args:
        threads: of one run, from 1 to the number of processors.
        rounds: how often each model is visited.
        burst_ms: about how long each visit lasts; a slow model is run once per visit.
        seed: of the inputs and of the order.

    Raises:
        DeviceError: an option out of range.
    """

    name = "ort-cpu"

    def __init__(self, threads: int = 1, rounds: int = 40, burst_ms: float = 1.5, seed: int = 0) -> None:
        available = os.cpu_count() or 1
        if threads not in range(1, available + 1):
            raise DeviceError(f"ort-cpu: threads = {threads!r} is not allowed; choose from 1 to {available}")
        if rounds < 1 or not burst_ms > 0:
            raise DeviceError(f"ort-cpu: rounds = {rounds!r}, burst_ms = {burst_ms!r}; both must be positive")
        self.threads, self.rounds, self.burst_ms, self.seed = threads, rounds, burst_ms, seed
        self.description: dict[str, Any] = {
            "device": self.name,
            "runtime": "onnxruntime",
            "runtime_version": ort.__version__,
            "processor": _processor(),
            "os": f"{platform.system()} {platform.machine()}",
            "threads": threads,
            "precision": "float32",
            "torch_version": str(torch.__version__),
        }

    def measure(
        self,
        models: Sequence[tuple[nn.Module, tuple[int, ...]]],
        on_progress: Callable[[int, int], None] = lambda *_: None,
    ) -> list[Timing]:
        """Times each `(module, input shape without batch)`; see `ofa.device.Device`.

        Args:
            models: all are held in memory at once, as they are measured in turns.
            on_progress: called after each model is prepared and after each round.
        """
        total = len(models) + self.rounds
        rng = np.random.default_rng(self.seed)
        prepared = []
        with tempfile.TemporaryDirectory() as folder:
            for done, (module, shape) in enumerate(models, start=1):
                prepared.append(self._prepare(module, shape, Path(folder) / "model.onnx", rng))
                on_progress(done, total)
        for done in range(1, self.rounds + 1):
            for index in rng.permutation(len(prepared)):
                prepared[index].burst()
            on_progress(len(models) + done, total)
        return [model.timing() for model in prepared]

    def _prepare(self, module: nn.Module, shape: tuple[int, ...], path: Path, rng: np.random.Generator) -> _Model:
        to_onnx(module, shape, path)
        feed = {INPUT: rng.standard_normal((1, *shape), dtype=np.float32)}
        model = _Model(session(path, self.threads), feed, n_runs=_WARMUP_RUNS, times_ns=[])
        model.burst()
        n_runs = max(1, round(self.burst_ms * 1e6 / float(np.median(model.times_ns))))
        return _Model(model.session, feed, n_runs, times_ns=[])


@dataclass(frozen=True)
class _Model:
    session: ort.InferenceSession
    feed: dict[str, NDArray[np.float32]]
    n_runs: int
    times_ns: list[int]

    def burst(self) -> None:
        run, feed, clock, times_ns = self.session.run, self.feed, time.perf_counter_ns, self.times_ns
        run(None, feed)
        for _ in range(self.n_runs):
            start = clock()
            run(None, feed)
            times_ns.append(clock() - start)

    def timing(self) -> Timing:
        low, median, high = np.percentile(self.times_ns, (25, 50, 75)) / 1e6
        return Timing(float(median), float(high - low), len(self.times_ns))


def _processor() -> str:
    """The processor's model name, as far as the system tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith(("model name", "Model"))]
    return next(iter(names), "") or platform.processor() or platform.machine()
