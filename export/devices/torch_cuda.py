"""The device `torch-cuda`: PyTorch itself on an NVIDIA GPU."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from export.devices.local import ADVICE, check_batch, describe, normal_images
from export.errors import check_choice, one_line
from ofa.core.errors import DeviceError
from ofa.devices.device import Host, Model, Runner

_DTYPES = {"float32": torch.float32, "float16": torch.float16}


class TorchCuda:
    """Run models as PyTorch modules on the first GPU that CUDA shows; implements `ofa.devices.device.Device`.

    A run is what lies between two CUDA events, one before its first kernel is launched and one after its last, with
    the GPU idle before. So waiting for Python counts, as it does in use. cuDNN picks its algorithms by trial in the
    run that is not timed; TensorFloat-32 is off in convolutions.

    Args:
        precision: "float32" or "float16", of weights and activations.
        channels_last: whether images and convolutions have the memory format `torch.channels_last`.
        batch: number of images in one run, from 1 to 4096.
    """

    name = "torch-cuda"
    precisions: ClassVar[tuple[str, ...]] = tuple(_DTYPES)

    def __init__(self, precision: str = "float32", channels_last: bool = False, batch: int = 1) -> None:
        check_choice(f"{self.name}: precision", precision, self.precisions)
        if not isinstance(channels_last, bool):
            raise DeviceError(f"{self.name}: channels_last = {channels_last!r:.60} is not allowed; give true or false")
        check_batch(self.name, batch)
        if not torch.cuda.is_available():
            version = f"PyTorch {torch.__version__} (for CUDA {torch.version.cuda or 'none'})"
            raise DeviceError(f"{self.name}: {version} finds no GPU; install a PyTorch for the CUDA of nvidia-smi")
        self.precision, self.channels_last, self.batch = precision, channels_last, batch
        self.hosts: Sequence[Host] = (self,)
        self.description = describe(
            self.name,
            "torch",
            str(torch.__version__),
            processor=torch.cuda.get_device_name(0),
            precision=precision,
            channels_last=channels_last,
            batch=batch,
            cuda_version=str(torch.version.cuda),
            cudnn_version=str(torch.backends.cudnn.version()),  # type: ignore[no-untyped-call]  # torch's
        )

    def load(self, model: Model) -> Runner:
        """Move a model and its images to the GPU."""
        images, dtype = torch.from_numpy(normal_images(self.batch, model.input_shape)), _DTYPES[self.precision]
        with one_line(DeviceError, f"{self.name} cannot load a model", ADVICE):
            pair = move(model.module(), images, device="cuda:0", dtype=dtype, channels_last=self.channels_last)
            return TorchRunner(*pair)


@dataclass(frozen=True)
class TorchRunner:
    """Time the runs of a module by CUDA events; implements `ofa.devices.device.Runner`."""

    module: nn.Module
    images: Tensor
    event: Callable[..., Any] = torch.cuda.Event

    def __call__(self, n: int) -> list[float]:
        """Return the milliseconds of each of `n` runs, after one that is not timed."""
        with (
            one_line(DeviceError, f"{TorchCuda.name} cannot run a model", ADVICE),
            torch.inference_mode(),
            torch.backends.cudnn.flags(enabled=True, benchmark=True, allow_tf32=False),
        ):
            self._run_ms()
            return [self._run_ms() for _ in range(n)]

    def _run_ms(self) -> float:
        start, end = self.event(enable_timing=True), self.event(enable_timing=True)
        start.record()
        self.module(self.images)
        end.record()
        end.synchronize()
        return float(start.elapsed_time(end))


def move(
    module: nn.Module, images: Tensor, *, device: str, dtype: torch.dtype, channels_last: bool
) -> tuple[nn.Module, Tensor]:
    """Move both to a device and a type; inputs that are not images have no channels to put last."""
    module, images = module.to(device, dtype), images.to(device, dtype)
    if channels_last and images.dim() == 4:
        return module.to(memory_format=torch.channels_last), images.to(memory_format=torch.channels_last)
    return module, images
