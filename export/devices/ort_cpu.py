"""The device `ort-cpu`: ONNX Runtime on this machine's processor."""

from __future__ import annotations

import os
import platform
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import torch
from numpy.typing import NDArray

from export.formats.onnx import to_onnx
from export.formats.quantize import check_precision, quantize
from export.session import INPUT, session
from ofa.core.errors import DeviceError
from ofa.devices.device import Host, Model, Runner

_CALIBRATION_IMAGES = 4


class OrtCpu:
    """Runs models with ONNX Runtime, as they will run once deployed; implements `ofa.devices.device.Device`.

    Each run is one plain `InferenceSession.run`, whose own cost (some microseconds) is part of what is reported.
    For "int8_static", ranges are those of random normal images: values do not change the time.

    Args:
        threads: of one run, from 1 to the number of processors.
        precision: "float32", "int8_dynamic" or "int8_static"; see `export.formats.quantize`.

    Raises:
        DeviceError: an option out of range.
    """

    name = "ort-cpu"

    def __init__(self, threads: int = 1, precision: str = "float32") -> None:
        self.threads = checked_threads(self.name, threads)
        self.precision = check_precision(self.name, precision)
        self.hosts: Sequence[Host] = (self,)
        self.description: dict[str, Any] = {
            "device": self.name,
            "runtime": "onnxruntime",
            "runtime_version": ort.__version__,
            "processor": processor(),
            "os": f"{platform.system()} {platform.machine()}",
            "threads": threads,
            "precision": precision,
            "torch_version": str(torch.__version__),
        }

    def load(self, model: Model) -> Runner:
        """Exports a model, quantizes it if asked to, and makes a session of it."""
        images = normal_images(_CALIBRATION_IMAGES, model.input_shape)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.onnx"
            to_onnx(model.module(), model.input_shape, path)
            quantize(path, self.precision, images)
            return OrtRunner(session(path, self.threads), {INPUT: images[:1]})


@dataclass(frozen=True)
class OrtRunner:
    """Times the runs of a session; implements `ofa.devices.device.Runner`."""

    session: ort.InferenceSession
    feed: dict[str, NDArray[np.float32]]

    def __call__(self, n: int) -> list[float]:
        """Milliseconds of each run."""
        run, feed, clock, times = self.session.run, self.feed, time.perf_counter_ns, []
        run(None, feed)  # brings the model back into the processor's caches
        for _ in range(n):
            start = clock()
            run(None, feed)
            times.append((clock() - start) / 1e6)
        return times


def checked_threads(device: str, threads: int) -> int:
    """The threads of one run.

    Raises:
        DeviceError: not from 1 to the number of processors.
    """
    available = os.cpu_count() or 1
    if threads not in range(1, available + 1):
        raise DeviceError(f"{device}: threads = {threads!r} is not allowed; choose from 1 to {available}")
    return threads


def normal_images(n: int, input_shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Inputs `[n, *input_shape]`, random and normal, always the same."""
    return np.random.default_rng(0).standard_normal((n, *input_shape), dtype=np.float32)


def processor() -> str:
    """The processor's model name, as far as the system tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith(("model name", "Model"))]
    return next(iter(names), "") or platform.processor() or platform.machine()
