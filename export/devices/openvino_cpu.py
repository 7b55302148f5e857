"""The device `openvino-cpu`: OpenVINO on this machine's processor; an extra, `pip install 'ofa[openvino]'`."""

from __future__ import annotations

import importlib
import platform
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from time import perf_counter_ns
from types import ModuleType
from typing import Any

import torch

from export.devices.ort_cpu import checked_threads, normal_images, processor
from export.formats.onnx import to_onnx
from ofa.core.errors import DeviceError
from ofa.devices.device import Host, Model, Runner


class OpenvinoCpu:
    """Runs models with OpenVINO, one at a time in one stream; implements `ofa.devices.device.Device`.

    With OpenVINO's own hint for latency the times are the same, but the first run binds each weight to a NUMA node, so
    that the system has to map it apart: a transformer then has 250 of the 65530 maps that a Linux process may have,
    beyond which OpenVINO aborts, and 30 without.

    OpenVINO computes in bfloat16 by itself where the processor can; here it is told to keep to float32, so that it
    computes what the other devices compute.

    Args:
        threads: of one run, from 1 to the number of processors.
        precision: "float32".

    Raises:
        DeviceError: OpenVINO is not installed, or an option out of range.
    """

    name = "openvino-cpu"

    def __init__(self, threads: int = 1, precision: str = "float32") -> None:
        if precision != "float32":
            raise DeviceError(f"{self.name}: precision = {precision!r} is not known; choose float32")
        self.threads = checked_threads(self.name, threads)
        self.hosts: Sequence[Host] = (self,)
        self._openvino = _imported()
        self._core = _core()
        self.description: dict[str, Any] = {
            "device": self.name,
            "runtime": "openvino",
            "runtime_version": str(self._openvino.get_version()),
            "processor": processor(),
            "os": f"{platform.system()} {platform.machine()}",
            "threads": threads,
            "precision": precision,
            "torch_version": str(torch.__version__),
        }

    def load(self, model: Model) -> Runner:
        """Exports a model and compiles it for batch 1."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.onnx"
            to_onnx(model.module(), model.input_shape, path)
            read = self._core.read_model(path)
        read.reshape([1, *model.input_shape])
        options = {
            "PERFORMANCE_HINT": "THROUGHPUT",
            "NUM_STREAMS": "1",
            "INFERENCE_NUM_THREADS": self.threads,
            "INFERENCE_PRECISION_HINT": "f32",
        }
        request = self._core.compile_model(read, "CPU", options).create_infer_request()
        request.set_input_tensor(self._openvino.Tensor(normal_images(1, model.input_shape)))
        return OpenvinoRunner(request)


@dataclass(frozen=True)
class OpenvinoRunner:
    """Times the runs of a compiled model whose input is set; implements `ofa.devices.device.Runner`."""

    request: Any

    def __call__(self, n: int) -> list[float]:
        """Milliseconds of each run."""
        run, clock, times = partial(self.request.infer, share_outputs=True), perf_counter_ns, []
        run()
        for _ in range(n):
            start = clock()
            run()
            times.append((clock() - start) / 1e6)
        return times


@cache
def _core() -> Any:
    """The one core of this process.

    Each has the main thread handle signals on a stack of its own, which is freed with it. Of two that are dropped in
    the order in which they were made, the second leaves the thread with the freed stack of the first, and the next
    signal, such as that of a child process that ended, crashes the process.
    """
    core = _imported().Core()
    core.set_property({"ENABLE_MMAP": False})  # a mapped file could not be removed everywhere
    return core


def _imported() -> ModuleType:
    """OpenVINO without its telemetry, which would send a message from a thread of its own as soon as it is imported."""
    telemetry = "openvino_telemetry"
    hidden = telemetry not in sys.modules
    if hidden:
        sys.modules[telemetry] = None  # type: ignore[assignment]  # OpenVINO goes without a package that is missing
    try:
        return importlib.import_module("openvino")
    except ImportError as error:
        raise DeviceError(
            f"{OpenvinoCpu.name}: OpenVINO is not installed ({error}); run: pip install 'ofa[openvino]'"
        ) from error
    finally:
        if hidden:
            del sys.modules[telemetry]
