"""The model format `onnx`: files for ONNX Runtime, in float32, float16 or 8-bit integers."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import nn

from export.formats.onnx import export_onnx
from export.formats.precision import convert
from export.session import run, session
from ofa.core.files import replacing
from ofa.devices.format import Logits


class OnnxFormat:
    """Implements `ofa.devices.format.Format`."""

    name, suffix = "onnx", ".onnx"

    def write(
        self,
        network: nn.Module,
        input_shape: tuple[int, ...],
        path: Path,
        *,
        precision: str,
        images: NDArray[np.float32],
        metadata: Mapping[str, str],
    ) -> None:
        """Export a network in float32, then convert it to the precision; see `export_onnx` and `convert`."""
        with replacing(path) as temporary:
            export_onnx(network, input_shape, temporary, metadata=metadata)
            convert(temporary, precision, images)

    def load(self, path: Path) -> Logits:
        """Load a file with ONNX Runtime on one thread."""
        return partial(run, session(path))


FORMAT = OnnxFormat()
