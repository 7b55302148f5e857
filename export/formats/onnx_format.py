"""The model format `onnx`: files for ONNX Runtime, in float32, float16 or 8-bit integers."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import nn

from export.errors import check_choice
from export.formats.onnx import check_options, export_onnx
from export.formats.ort_format import write_ort
from export.formats.precision import convert
from export.session import run, session
from ofa.core.errors import ExportError
from ofa.core.files import replacing
from ofa.devices.format import Logits


class OnnxFormat:
    """ONNX files; implements `ofa.devices.format.Format`.

    Args:
        opset: version of ONNX's operators, 13 to 20.
        batch: fixed number of images in one run; by default, the files take any.
        ort: whether to write each file in ONNX Runtime's own format, too, beside it.
    """

    name, suffix = "onnx", ".onnx"

    def __init__(self, opset: int = 18, batch: int | None = None, ort: bool = False) -> None:
        check_options(batch, opset)
        check_choice("onnx: ort", ort, (True, False), kind=ExportError)
        self.opset, self.batch, self.ort = opset, batch, ort

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
            export_onnx(network, input_shape, temporary, batch=self.batch, opset=self.opset, metadata=metadata)
            convert(temporary, precision, images)
        if self.ort:
            write_ort(path)

    def load(self, path: Path) -> Logits:
        """Load a file with ONNX Runtime on one thread."""
        return partial(run, session(path))
