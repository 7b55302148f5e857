"""The model format `ncnn`: files for ncnn, Tencent's runtime for phones; needs the extra `ncnn`."""

import json
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import nn

from export.errors import check_choice, check_installed
from export.formats.onnx import check_options, export_onnx
from export.ncnn_session import BIN, DESCRIPTION, PARAM, NcnnModel, check_ncnn
from ofa.core.errors import DeviceError
from ofa.core.files import replacing
from ofa.devices.format import Logits

PRECISIONS = ("float32", "float16")
"""Of the weights in a file; `NcnnModel` computes in float32."""
_SECONDS = 600
_UNSUPPORTED = re.compile(r"^.*(?:not supported|unsupported).*$", re.MULTILINE)
_FOREIGN_LAYER = re.compile(r"^(\S*[.:]\S*) +\S+ +\d+ +\d+", re.MULTILINE)
"""A layer that pnnx could not express in ncnn's own, which have neither dots nor colons in their names."""
_RUN = """
import sys
import ncnn
import numpy as np
net = ncnn.Net()
net.load_param(sys.argv[1])
net.load_model(sys.argv[2])
extractor = net.create_extractor()
images = np.zeros([int(size) for size in sys.argv[3:]], np.float32)
extractor.input("in0", ncnn.Mat(images).clone())
sys.exit(extractor.extract("out0")[0] != 0)
"""
"""A trial in a process of its own, as ncnn may crash on what it cannot run."""


class NcnnFormat:
    """Archives of ncnn's two files, converted from ONNX by pnnx; implements `ofa.devices.format.Format`.

    A file is a zip archive without compression of `model.param` and `model.bin`, which apps on phones load, and of
    `model.json` with the shape of an image and the metadata.

    Args:
        opset: version of ONNX's operators that are converted, 13 to 20.
    """

    name, suffix, precisions = "ncnn", ".ncnn", PRECISIONS

    def __init__(self, opset: int = 18) -> None:
        check_options(None, opset)
        check_ncnn()
        _pnnx()
        self.opset = opset

    def write(
        self,
        network: nn.Module,
        input_shape: tuple[int, ...],
        path: Path,
        *,
        precision: str,
        images: NDArray[np.float32],  # noqa: ARG002  # no ranges of activations are needed
        metadata: Mapping[str, str],
    ) -> None:
        """Export a network and convert it; see `export_onnx` and `write_ncnn`."""
        with tempfile.TemporaryDirectory() as folder:
            onnx_path = Path(folder) / "model.onnx"
            export_onnx(network, input_shape, onnx_path, batch=1, opset=self.opset)
            write_ncnn(onnx_path, input_shape, path, precision, metadata)

    def load(self, path: Path) -> Logits:
        """Load a file with ncnn on one thread."""
        return NcnnModel(path)


def write_ncnn(
    onnx_path: Path,
    input_shape: tuple[int, ...],
    path: Path,
    precision: str = "float32",
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Convert a float32 ONNX file for one image to an archive that runs, whole or not at all.

    DeviceError if ncnn or pnnx is not installed, ncnn lacks an operator, which is named, or cannot hold the precision.
    """
    check_choice("ncnn: precision", precision, PRECISIONS)
    shape = ",".join(map(str, (1, *input_shape)))
    with tempfile.TemporaryDirectory() as folder, replacing(path) as temporary:
        param, weights = (Path(folder, name) for name in ("model.ncnn.param", "model.ncnn.bin"))
        options = [f"inputshape=[{shape}]", f"fp16={int(precision == 'float16')}", f"pnnxpy={folder}/model.py"]
        options += [f"ncnnparam={param}", f"ncnnbin={weights}", f"pnnxparam={folder}/p", f"pnnxbin={folder}/b"]
        options += [f"pnnxonnx={folder}/o", f"ncnnpy={folder}/ncnn.py"]
        source = shutil.copy(onnx_path, folder)  # pnnx writes another file beside it
        command = [str(_pnnx()), str(source), *options]
        done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, cwd=folder)
        report = done.stdout + done.stderr
        if done.returncode or not param.is_file() or not weights.is_file():
            lines = report.strip().splitlines() or [f"it ended with code {done.returncode}"]
            raise DeviceError(f"{path.name}: pnnx cannot convert it: {lines[-1]}; use another format")
        foreign = _FOREIGN_LAYER.search(param.read_text()) or _UNSUPPORTED.search(report)
        if foreign is not None:
            what = foreign[1] if foreign.re is _FOREIGN_LAYER else foreign[0].strip()
            raise DeviceError(f"{path.name}: ncnn cannot express it: {what}; use other operators or another format")
        trial = [sys.executable, "-I", "-c", _RUN, str(param), str(weights), *map(str, input_shape)]
        done = subprocess.run(trial, capture_output=True, text=True, timeout=_SECONDS)
        if done.returncode:
            lines = done.stderr.strip().splitlines() or [f"it ends with code {done.returncode}"]
            raise DeviceError(f"{path.name}: ncnn cannot run it: {lines[-1]}; use another format")
        with zipfile.ZipFile(temporary, "w") as archive:
            archive.write(param, PARAM)
            archive.write(weights, BIN)
            archive.writestr(DESCRIPTION, json.dumps({"input_shape": input_shape, "metadata": dict(metadata or {})}))


def _pnnx() -> Path:
    """Return the path of pnnx's program; DeviceError if it is not installed."""
    check_installed("pnnx", "pnnx", "ncnn")
    package = find_spec("pnnx")
    assert package is not None
    assert package.origin is not None
    return Path(package.origin).with_name("pnnx.exe" if sys.platform == "win32" else "pnnx")
