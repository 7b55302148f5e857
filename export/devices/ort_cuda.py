"""The device `ort-cuda`: ONNX Runtime on an NVIDIA GPU."""

from __future__ import annotations

import platform
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnxruntime as ort
import torch

from export.devices.ort_cpu import normal_images
from export.formats.onnx import to_onnx
from export.session import INPUT, OUTPUT
from ofa.core.errors import DeviceError
from ofa.devices.device import Host, Model, Runner

_PROVIDER = "CUDAExecutionProvider"


class OrtCuda:
    """Runs models with ONNX Runtime on the first GPU that CUDA shows; implements `ofa.devices.device.Device`.

    Input and output are on the GPU. A run ends when the GPU has computed it. TensorFloat-32 is off.

    Raises:
        DeviceError: ONNX Runtime is not built for CUDA, or no GPU can be used.
    """

    name = "ort-cuda"

    def __init__(self) -> None:
        if _PROVIDER not in (available := ort.get_available_providers()):
            raise DeviceError(
                f"{self.name}: ONNX Runtime {ort.__version__} has {', '.join(available)} but no {_PROVIDER}; on a "
                "machine with an NVIDIA GPU, run: pip uninstall onnxruntime; pip install onnxruntime-gpu"
            )
        self.hosts: Sequence[Host] = (self,)
        self.description: dict[str, Any] = {
            "device": self.name,
            "runtime": "onnxruntime",
            "runtime_version": ort.__version__,
            "processor": torch.cuda.get_device_name(0) if torch.cuda.is_available() else "GPU not known to PyTorch",
            "os": f"{platform.system()} {platform.machine()}",
            "threads": 1,
            "precision": "float32",
            "torch_version": str(torch.__version__),
        }

    def load(self, model: Model) -> Runner:
        """Exports a model and makes a session of it on the GPU."""
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.onnx"
            to_onnx(model.module(), model.input_shape, path)
            session = ort.InferenceSession(str(path), options, providers=[(_PROVIDER, {"use_tf32": "0"})])
        if _PROVIDER not in session.get_providers():  # it warns and takes the processor instead
            raise DeviceError(
                f"{self.name}: ONNX Runtime {ort.__version__} could not start {_PROVIDER}; see what it printed, mostly "
                "a driver, CUDA or cuDNN that is missing or of another version"
            )
        return bound(session, model.input_shape, "cuda")


@dataclass(frozen=True)
class BoundRunner:
    """Times the runs of a session whose input and output stay where they are; implements
    `ofa.devices.device.Runner`.
    """

    session: ort.InferenceSession
    binding: ort.IOBinding

    def __call__(self, n: int) -> list[float]:
        """Milliseconds of each run."""
        clock, times = time.perf_counter_ns, []
        self._run()
        for _ in range(n):
            start = clock()
            self._run()
            times.append((clock() - start) / 1e6)
        return times

    def _run(self) -> None:
        self.session.run_with_iobinding(self.binding)
        self.binding.synchronize_outputs()


def bound(session: ort.InferenceSession, input_shape: tuple[int, ...], memory: str) -> BoundRunner:
    """Puts an image and the place for the logits into a memory, "cuda" or "cpu"."""
    binding = session.io_binding()
    binding.bind_ortvalue_input(INPUT, ort.OrtValue.ortvalue_from_numpy(normal_images(1, input_shape), memory, 0))
    binding.bind_output(OUTPUT, memory, 0)
    return BoundRunner(session, binding)
