"""MNN, Alibaba's runtime for phones, on the CPU; needs the extra `mnn`. Free of torch."""

from functools import cache
from pathlib import Path
from threading import Lock
from types import ModuleType

import numpy as np
from numpy.typing import NDArray

from export.errors import check_image_shape, check_installed, check_number, one_line
from export.session import INPUT, OUTPUT
from export.silence import silent
from ofa.core.errors import DeviceError

_HIGH_PRECISION = 1


class MnnModel:
    """A model that MNN has loaded from a file; safe to call from many threads, which run one after the other.

    Attributes:
        input_shape: of one image.

    Raises:
        DeviceError: MNN is not installed, or the file is not MNN's.
    """

    def __init__(self, path: Path, threads: int = 1) -> None:
        check_number("threads", threads, 1, 1024, whole=True)
        self._mnn, self._lock = import_mnn(), Lock()
        with one_line(DeviceError, f"MNN cannot load {path.name}", "export the network again"), silent():
            config = {"backend": 0, "numThread": threads, "precision": _HIGH_PRECISION}
            manager = self._mnn.nn.create_runtime_manager((config,))
            self._module = self._mnn.nn.load_module_from_file(str(path), [INPUT], [OUTPUT], runtime_manager=manager)
            self.input_shape = tuple(self._mnn.expr.load_as_dict(str(path))[INPUT].shape[1:])

    def __call__(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the logits `[n, classes]` of images `[n, channels, height, width]`; DeviceError if the model fails."""
        expr = self._mnn.expr
        check_image_shape(self.input_shape, images)  # MNN would read beyond them
        with (
            self._lock,
            one_line(DeviceError, f"MNN cannot run the model on {images.shape}", "export the network again"),
        ):
            logits = self._module.forward(expr.const(np.ascontiguousarray(images), list(images.shape), expr.NCHW))
            return np.array(logits.read(), dtype=np.float32)


@cache
def import_mnn() -> ModuleType:
    """Import MNN, without the line that it writes to the terminal; DeviceError if it is not installed."""
    check_mnn()
    with silent():
        import MNN
        import MNN.nn
    module: ModuleType = MNN
    return module


def check_mnn() -> None:
    """Raise DeviceError if MNN is not installed."""
    check_installed("MNN", "MNN", "mnn")
