"""ExecuTorch, PyTorch's runtime for phones, on the CPU; needs the extra `executorch`."""

import warnings
from pathlib import Path
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from export.errors import check_image_shape, check_installed, check_number, one_line
from export.silence import silent
from ofa.core.errors import DeviceError

_ADVICE = "export the network again"
_POOL = Lock()  # all models of a process share one pool of threads


class ExecutorchModel:
    """A model for one image that ExecuTorch has loaded from a file; safe to call from threads, which run one by one.

    ExecuTorch's Python runtime needs torch. Its threads are those of the process: the last model that was loaded sets
    their number.

    Attributes:
        input_shape: of one image.

    Raises:
        DeviceError: ExecuTorch is not installed, or the file is not one of its models with one input.
    """

    def __init__(self, path: Path, threads: int = 1) -> None:
        check_number("threads", threads, 1, 1024, whole=True)
        check_executorch()
        with _POOL, one_line(DeviceError, f"ExecuTorch cannot load {path.name}", _ADVICE), silent():
            with warnings.catch_warnings(action="ignore"):  # of what ExecuTorch itself imports
                from executorch.extension.pybindings import portable_lib

            portable_lib._unsafe_reset_threadpool(threads)
            self._buffer = path.read_bytes()  # the module refers to it
            self._module = portable_lib._load_for_executorch_from_buffer(self._buffer)
            about = self._module.method_meta("forward")
            if about.num_inputs() != 1:
                raise ValueError(f"it takes {about.num_inputs()} inputs")
            self.input_shape = tuple(about.input_tensor_meta(0).sizes()[1:])

    def __call__(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the logits `[n, classes]` of images `[n, channels, height, width]`; DeviceError if the model fails."""
        import torch

        check_image_shape(self.input_shape, images)
        with _POOL, one_line(DeviceError, f"ExecuTorch cannot run the model on {images.shape}", _ADVICE):
            batch = torch.from_numpy(np.ascontiguousarray(images))
            return np.concatenate([self._module.forward((batch[i : i + 1],))[0].numpy() for i in range(len(batch))])


def check_executorch() -> None:
    """Raise DeviceError if ExecuTorch is not installed."""
    check_installed("executorch", "ExecuTorch", "executorch")
