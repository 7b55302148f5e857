"""The device `torch-cuda`: PyTorch itself on an NVIDIA GPU."""

from __future__ import annotations

import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from export.devices.ort_cpu import normal_images
from ofa.core.errors import DeviceError
from ofa.devices.device import Host, Model, Runner

_DTYPES = {"float32": torch.float32, "float16": torch.float16}


class TorchCuda:
    """Runs models as PyTorch modules on the first GPU that CUDA shows; implements `ofa.devices.device.Device`.

    A run is what lies between two CUDA events, one before its first kernel is asked for and one after its last, with
    the GPU idle before. So waiting for Python counts, as it does in use. cuDNN picks its algorithms by trial in the
    run that is not timed; TensorFloat-32 is off in convolutions.

    Args:
        precision: "float32" or "float16", of weights and activations.
        channels_last: the memory format of images and convolutions.

    Raises:
        DeviceError: no GPU, or an unknown precision.
    """

    name = "torch-cuda"

    def __init__(self, precision: str = "float32", channels_last: bool = False) -> None:
        if precision not in _DTYPES:
            raise DeviceError(f"{self.name}: precision = {precision!r} is not known; choose from {', '.join(_DTYPES)}")
        if not torch.cuda.is_available():
            raise DeviceError(
                f"{self.name}: PyTorch {torch.__version__} (for CUDA {torch.version.cuda or 'none'}) sees no GPU; "
                "see what nvidia-smi says, and install a PyTorch for this machine's CUDA"
            )
        self.precision, self.channels_last = precision, channels_last
        self.hosts: Sequence[Host] = (self,)
        self.description: dict[str, Any] = {
            "device": self.name,
            "runtime": "torch",
            "runtime_version": str(torch.__version__),
            "cuda_version": str(torch.version.cuda),
            "cudnn_version": str(torch.backends.cudnn.version()),  # type: ignore[no-untyped-call]
            "processor": torch.cuda.get_device_name(0),
            "os": f"{platform.system()} {platform.machine()}",
            "threads": 1,
            "precision": precision,
            "channels_last": channels_last,
            "torch_version": str(torch.__version__),
        }

    def load(self, model: Model) -> Runner:
        """Moves a model and an image to the GPU."""
        images = torch.from_numpy(normal_images(1, model.input_shape))
        return TorchRunner(
            *placed(model.module(), images, torch.device("cuda", 0), _DTYPES[self.precision], self.channels_last)
        )


class Event(Protocol):
    """A moment on the GPU, such as `torch.cuda.Event`."""

    def record(self) -> None:
        """Sets it behind the work asked for so far."""

    def synchronize(self) -> None:
        """Waits for it."""

    def elapsed_time(self, end_event: Any) -> float:
        """Milliseconds to a later one."""
        ...


def _cuda_event() -> Event:
    return torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]


@dataclass(frozen=True)
class TorchRunner:
    """Times the runs of a module by events; implements `ofa.devices.device.Runner`."""

    module: nn.Module
    images: Tensor
    event: Callable[[], Event] = _cuda_event

    def __call__(self, n: int) -> list[float]:
        """Milliseconds of each run."""
        with torch.inference_mode(), torch.backends.cudnn.flags(enabled=True, benchmark=True, allow_tf32=False):
            self._run_ms()
            return [self._run_ms() for _ in range(n)]

    def _run_ms(self) -> float:
        start, end = self.event(), self.event()
        start.record()
        self.module(self.images)
        end.record()
        end.synchronize()
        return start.elapsed_time(end)


def placed(
    module: nn.Module, images: Tensor, device: torch.device, dtype: torch.dtype, channels_last: bool
) -> tuple[nn.Module, Tensor]:
    """Both on a device, of one type; inputs that are not images have no channels to put last."""
    module, images = module.to(device, dtype), images.to(device, dtype)
    if channels_last and images.dim() == 4:
        return module.to(memory_format=torch.channels_last), images.to(memory_format=torch.channels_last)
    return module, images
