"""The model format `mnn`: files for MNN, Alibaba's runtime for phones; needs the extra `mnn`."""

import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import nn

from export.errors import check_choice
from export.formats.onnx import check_options, export_onnx
from export.mnn_session import MnnModel, check_mnn
from ofa.core.errors import DeviceError
from ofa.core.files import replacing
from ofa.devices.format import Logits

PRECISIONS = ("float32", "float16")
"""Of the weights in a file; MNN computes in float32."""
_CONVERT = "import sys, _tools; _tools.mnnconvert(sys.argv)"
"""What MNN's command does, without what it does besides: install a package, and send a message over the network."""
_CONVERT_SECONDS = 600
_UNKNOWN_OPERATORS = re.compile(r"Op Not Support: *(.*)")


class MnnFormat:
    """MNN files, converted from ONNX; implements `ofa.devices.format.Format`. They hold no metadata.

    Args:
        opset: version of ONNX's operators that are converted, 13 to 20.
    """

    name, suffix, precisions = "mnn", ".mnn", PRECISIONS

    def __init__(self, opset: int = 18) -> None:
        check_options(None, opset)
        check_mnn()
        self.opset = opset

    def write(
        self,
        network: nn.Module,
        input_shape: tuple[int, ...],
        path: Path,
        *,
        precision: str,
        images: NDArray[np.float32],  # noqa: ARG002  # no ranges of activations are needed
        metadata: Mapping[str, str],  # noqa: ARG002
    ) -> None:
        """Export a network and convert it; see `export_onnx` and `write_mnn`."""
        with tempfile.TemporaryDirectory() as folder:
            onnx_path = Path(folder) / "model.onnx"
            export_onnx(network, input_shape, onnx_path, opset=self.opset)
            write_mnn(onnx_path, path, precision)

    def load(self, path: Path) -> Logits:
        """Load a file with MNN on one thread."""
        return MnnModel(path)


def write_mnn(onnx_path: Path, path: Path, precision: str = "float32") -> None:
    """Convert a float32 ONNX file whose input is `images` and whose output is `logits`, whole or not at all.

    DeviceError if MNN is not installed, lacks an operator, which is named, or cannot hold the precision.
    """
    check_choice("mnn: precision", precision, PRECISIONS)
    check_mnn()
    with replacing(path) as temporary:
        command = [sys.executable, "-I", "-c", _CONVERT, "-f", "ONNX", "--bizCode", "ofa"]
        command += ["--modelFile", str(onnx_path), "--MNNModel", str(temporary)]
        command += ["--fp16"] if precision == "float16" else []
        done = subprocess.run(command, capture_output=True, text=True, timeout=_CONVERT_SECONDS)
        if not temporary.is_file() or not temporary.stat().st_size:
            unknown = _UNKNOWN_OPERATORS.search(done.stdout)
            lines = (done.stdout + done.stderr).strip().splitlines() or [f"it ended with code {done.returncode}"]
            reason = f"MNN has no operator {unknown[1].strip()}" if unknown else f"MNN cannot convert it: {lines[-1]}"
            raise DeviceError(f"{path.name}: {reason}; use other operators in the network, or another format")
