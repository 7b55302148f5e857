"""ONNX files in float16, by ONNX Runtime's converter."""

import tempfile
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnxruntime.quantization.calibrate import create_calibrator
from onnxruntime.transformers.float16 import convert_float_to_float16

from export.formats.calibration import CalibrationReader
from ofa.core.errors import DeviceError

_LARGEST = float(np.finfo(np.float16).max)  # 65504


def to_float16(source: Path, target: Path, images: NDArray[np.float32]) -> None:
    """Write a float32 file with weights and activations in float16; inputs and outputs stay float32.

    DeviceError if a weight, or an activation on `images` `[n, *input_shape]`, is beyond the largest float16: it would
    be clipped or become infinite.
    """
    model = onnx.load(source)
    weights = ((w.name, onnx.numpy_helper.to_array(w)) for w in model.graph.initializer if w.data_type == w.FLOAT)
    for name, values in [*weights, *_ranges(source, images)]:
        largest = float(np.abs(values).max(initial=0.0))
        if not largest <= _LARGEST:
            reached = f"tensor {name} reaches {largest:.3g}, but float16 ends at {_LARGEST:g}"
            raise DeviceError(f"{source.name} cannot be converted to float16: {reached}; use float32")
    onnx.save(convert_float_to_float16(model, keep_io_types=True), target)


def _ranges(source: Path, images: NDArray[np.float32]) -> list[tuple[str, NDArray[np.float32]]]:
    """Return the least and the largest value of each activation on some images, by the name of its tensor."""
    with tempfile.TemporaryDirectory() as folder:
        calibrator = create_calibrator(source, [], augmented_model_path=str(Path(folder, "augmented.onnx")))
        calibrator.collect_data(CalibrationReader(source, images))
        ranges = calibrator.compute_data()
    return [(name, np.array(data.range_value)) for name, data in ranges.items()]
