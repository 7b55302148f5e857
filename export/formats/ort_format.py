"""ONNX Runtime's own file format, which its reduced builds for phones and microcontrollers load."""

from pathlib import Path

import onnxruntime as ort

from export.errors import one_line
from ofa.core.errors import DeviceError
from ofa.core.files import replacing


def write_ort(path: Path) -> Path:
    """Write an ONNX file of any precision in ONNX Runtime's format beside it, and return the path, `*.ort`.

    The graph is optimized in ways that suit any processor; `export.session.session` loads the file. The layout that
    convolutions have on x86 is chosen for ONNX files only, so there a float32 network may take several times as long.
    DeviceError if ONNX Runtime cannot load the model.
    """
    target = path.with_suffix(".ort")
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.log_severity_level = 4  # errors are raised; they need not be printed as well
    options.add_session_config_entry("session.save_model_format", "ORT")
    with (
        replacing(target) as temporary,
        one_line(DeviceError, f"{path.name} cannot be written as {target.name}", "export the network again"),
    ):
        options.optimized_model_filepath = str(temporary)
        ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return target
