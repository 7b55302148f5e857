"""The device `ort-cuda`: ONNX Runtime on an NVIDIA GPU."""

from collections.abc import Sequence
from functools import partial
from typing import ClassVar

import numpy as np
import onnxruntime as ort
import torch
from numpy.typing import NDArray

from export.devices.local import ADVICE, LocalRunner, check_batch, describe, normal_images, onnx_file
from export.errors import check_choice, one_line
from export.session import INPUT, OUTPUT
from ofa.core.errors import DeviceError
from ofa.devices.device import Host, Model, Runner

_PROVIDER = "CUDAExecutionProvider"


class OrtCuda:
    """Run models with ONNX Runtime on the first GPU that CUDA shows; implements `ofa.devices.device.Device`.

    Input and output stay on the GPU. A run ends when the GPU has computed it. TensorFloat-32 is off. It is a
    DeviceError if ONNX Runtime is not built for CUDA, or no GPU can be used.

    Args:
        precision: "float32" or "float16", of weights and activations.
        batch: number of images in one run, from 1 to 4096.
    """

    name = "ort-cuda"
    precisions: ClassVar[tuple[str, ...]] = ("float32", "float16")

    def __init__(self, precision: str = "float32", batch: int = 1) -> None:
        check_choice(f"{self.name}: precision", precision, self.precisions)
        check_batch(self.name, batch)
        if _PROVIDER not in (available := ort.get_available_providers()):
            providers = f"ONNX Runtime {ort.__version__} has {', '.join(available)} but no {_PROVIDER}"
            raise DeviceError(f"{self.name}: {providers}; run: pip uninstall onnxruntime; pip install onnxruntime-gpu")
        gpu = torch.cuda.get_device_name(0) if torch.cuda.is_available() else "GPU not known to PyTorch"
        self.precision, self.batch = precision, batch
        self.hosts: Sequence[Host] = (self,)
        options = {"processor": gpu, "precision": precision, "batch": batch}
        self.description = describe(self.name, "onnxruntime", ort.__version__, **options)

    def load(self, model: Model) -> Runner:
        """Load the file of a model onto the GPU, or export it first."""
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
        with (
            onnx_file(model, precision=self.precision) as path,
            one_line(DeviceError, f"{self.name} cannot load a model", ADVICE),
        ):
            session = ort.InferenceSession(str(path), options, providers=[(_PROVIDER, {"use_tf32": "0"})])
            if _PROVIDER not in session.get_providers():  # it warns and takes the processor instead
                failure = f"ONNX Runtime {ort.__version__} could not start {_PROVIDER}"
                raise DeviceError(f"{self.name}: {failure}; install the driver, CUDA and cuDNN that it names")
            binding = bind(session, normal_images(self.batch, model.input_shape), "cuda")
            return LocalRunner(self.name, partial(run_bound, session, binding))


def bind(session: ort.InferenceSession, images: NDArray[np.float32], memory: str) -> ort.IOBinding:
    """Put images and the buffer of the logits into a memory, "cuda" or "cpu"."""
    binding = session.io_binding()
    binding.bind_ortvalue_input(INPUT, ort.OrtValue.ortvalue_from_numpy(images, memory, 0))
    binding.bind_output(OUTPUT, memory, 0)
    return binding


def run_bound(session: ort.InferenceSession, binding: ort.IOBinding) -> None:
    """Run a session on bound memory and wait for the result."""
    session.run_with_iobinding(binding)
    binding.synchronize_outputs()
