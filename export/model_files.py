"""Model files of other formats than ONNX, each loaded by its runtime. Free of torch."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from export.executorch_session import ExecutorchModel
from export.litert_session import LitertModel
from export.mnn_session import MnnModel
from export.ncnn_session import NcnnModel
from ofa.core.errors import DeviceError


class LoadedModel(Protocol):
    """A model that a runtime has loaded; safe to call from many threads.

    Attributes:
        input_shape: of one image.
    """

    input_shape: tuple[int, ...]

    def __call__(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the logits `[n, classes]` of images `[n, channels, height, width]`; DeviceError if the model fails."""
        ...


@dataclass(frozen=True)
class FileKind:
    """What the files of a format are.

    Attributes:
        suffix: of their names.
        load: loads one to run on a number of threads; DeviceError if that fails.
        device: that runs them on this computer.
        runtime: as the device's description names it.
    """

    suffix: str
    load: Callable[[Path, int], LoadedModel]
    device: str
    runtime: str


FILE_KINDS = {
    "executorch": FileKind(".pte", ExecutorchModel, "executorch-cpu", "executorch"),
    "litert": FileKind(".tflite", LitertModel, "litert-cpu", "litert"),
    "mnn": FileKind(".mnn", MnnModel, "mnn-cpu", "mnn"),
    "ncnn": FileKind(".ncnn", NcnnModel, "ncnn-cpu", "ncnn"),
}
"""By the name of the format."""


def load_model(file_format: str, path: Path, threads: int = 1) -> LoadedModel:
    """Load a file of a format; DeviceError if that fails, or the format is not one of `FILE_KINDS`."""
    if file_format not in FILE_KINDS:
        raise DeviceError(f"{path.name} has the format {file_format!r}, which this runtime does not serve")
    return FILE_KINDS[file_format].load(path, threads)
