"""ONNX files in 8-bit integers, by ONNX Runtime's quantizer.

"int8_dynamic" computes ranges of activations in each run, for transformers; "int8_static" sets them once, from
calibration images, for convolutional networks.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnxruntime.quantization import QuantFormat, QuantType, quantize_dynamic, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from export.errors import check_choice, one_line
from export.session import INPUT
from ofa.core.errors import DeviceError

PRECISIONS = ("float32", "int8_dynamic", "int8_static")


def quantize(path: Path, precision: str, images: NDArray[np.float32]) -> None:
    """Rewrite a float32 ONNX file in a precision of `PRECISIONS`; a model without weights stays as it is.

    Weights are quantized per output channel. Those of "int8_dynamic" are unsigned: older versions of ONNX Runtime
    (1.19, for one) cannot convolve dynamic activations with signed weights. Those of "int8_static" use 7 of their
    8 bits: without VNNI instructions, x86 processors add pairs of products in 16 bits, where 8-bit weights overflow.

    "int8_static" takes the ranges of activations from `images`, preprocessed, `[n, ...]`. Where only latency matters,
    random normal images do: it does not depend on values. A model that cannot be quantized is a DeviceError.
    """
    check_choice("precision", precision, PRECISIONS)
    if precision == "float32" or not onnx.load(path).graph.initializer:
        return
    if precision == "int8_static" and not len(images):
        raise DeviceError("quantize: int8_static requires calibration images; give at least one")
    prepared = path.with_name(f"{path.name}.prepared")
    try:
        with one_line(DeviceError, f"{path.name} cannot be quantized to {precision}", "use float32"), _quiet():
            quant_pre_process(path, prepared, skip_symbolic_shape=True)
            if precision == "int8_dynamic":
                quantize_dynamic(prepared, path, per_channel=True, weight_type=QuantType.QUInt8)
            else:
                quantize_static(
                    prepared,
                    path,
                    _CalibrationReader(images),
                    quant_format=QuantFormat.QDQ,
                    per_channel=True,
                    activation_type=QuantType.QUInt8,
                    weight_type=QuantType.QInt8,
                    reduce_range=True,
                )
    finally:
        prepared.unlink(missing_ok=True)


class _CalibrationReader:
    """Feed images one by one; ONNX Runtime calls `get_next` only."""

    def __init__(self, images: NDArray[np.float32]) -> None:
        self._images = iter(images)

    def get_next(self) -> dict[str, NDArray[np.float32]] | None:
        image = next(self._images, None)
        return None if image is None else {INPUT: image[None]}


@contextmanager
def _quiet() -> Iterator[None]:
    """Drop what the quantizer logs on the root logger, and the handler that logging would add for it."""
    root, handler = logging.getLogger(), logging.NullHandler()
    root.addHandler(handler)
    root.addFilter(_drop)
    try:
        yield
    finally:
        root.removeFilter(_drop)
        root.removeHandler(handler)


def _drop(_: logging.LogRecord) -> bool:
    return False
