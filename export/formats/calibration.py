"""Batches of images on which ONNX Runtime computes the ranges of activations."""

from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

from export.session import INPUT

_BATCH = 16  # as many activations are in memory at once


class CalibrationReader:
    """Feed images `[n, *input_shape]` in batches that the model takes; ONNX Runtime calls `get_next` only.

    A fixed batch is filled by the first images again.
    """

    def __init__(self, path: Path, images: NDArray[np.float32]) -> None:
        shape = next(value for value in onnx.load(path).graph.input if value.name == INPUT).type.tensor_type.shape
        fixed = shape.dim[0].dim_value
        indices = np.arange(-(-len(images) // fixed) * fixed if fixed else len(images)) % len(images)
        size = fixed or _BATCH
        self._batches = (images[indices[start : start + size]] for start in range(0, len(indices), size))

    def get_next(self) -> dict[str, NDArray[np.float32]] | None:
        """Return the next batch by the name of the input, or None."""
        batch = next(self._batches, None)
        return None if batch is None else {INPUT: batch}
