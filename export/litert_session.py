"""LiteRT, formerly TensorFlow Lite, on the CPU; needs the extra `litert`. Free of torch."""

from pathlib import Path
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from export.errors import check_image_shape, check_installed, check_number, one_line
from export.silence import silent
from ofa.core.errors import DeviceError

_ADVICE = "export the network again"


class LitertModel:
    """A model for one image that LiteRT has loaded from a file; safe to call from threads, which run one by one.

    Attributes:
        input_shape: of one image.

    Raises:
        DeviceError: LiteRT is not installed, or the file is not one of its models with one input and one output.
    """

    def __init__(self, path: Path, threads: int = 1) -> None:
        check_number("threads", threads, 1, 1024, whole=True)
        check_litert()
        from ai_edge_litert.interpreter import Interpreter

        with one_line(DeviceError, f"LiteRT cannot load {path.name}", _ADVICE), silent():
            self._interpreter = Interpreter(model_content=path.read_bytes(), num_threads=threads)
            self._interpreter.allocate_tensors()
            (entry,), (result,) = self._interpreter.get_input_details(), self._interpreter.get_output_details()
        self._input, self._output, self._lock = entry["index"], result["index"], Lock()
        self.input_shape = tuple(map(int, entry["shape"][1:]))

    def __call__(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the logits `[n, classes]` of images `[n, channels, height, width]`; DeviceError if the model fails."""
        check_image_shape(self.input_shape, images)
        with self._lock, one_line(DeviceError, f"LiteRT cannot run the model on {images.shape}", _ADVICE):
            return np.concatenate([self._run(images[i : i + 1]) for i in range(len(images))])

    def _run(self, image: NDArray[np.float32]) -> NDArray[np.float32]:
        self._interpreter.set_tensor(self._input, image)
        self._interpreter.invoke()
        logits: NDArray[np.float32] = self._interpreter.get_tensor(self._output)
        return logits


def check_litert() -> None:
    """Raise DeviceError if LiteRT is not installed."""
    check_installed("ai_edge_litert", "LiteRT", "litert")
