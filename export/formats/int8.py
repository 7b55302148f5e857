"""ONNX files in 8-bit integers, by ONNX Runtime's quantizer.

Weights are quantized per output channel. `docs/latency.md` has the accuracies that these choices lead to.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from onnxruntime import quantization
from onnxruntime.quantization import QuantFormat, QuantType
from onnxruntime.quantization.shape_inference import quant_pre_process

from export.formats.calibration import CalibrationReader

_LINEAR = ["Gemm", "MatMul"]
_STATIC = ["Conv", *_LINEAR, "Add", "Relu", "Clip"]


def quantize_dynamic(source: Path, target: Path) -> None:
    """Write a float32 file with 8-bit linear layers whose inputs are quantized in each run.

    Convolutions stay float32: with dynamic ranges ONNX Runtime takes 2 to 8 times as long for them. Weights are
    unsigned, as x86 processors without VNNI instructions add signed ones in 16 bits, where they overflow.
    """
    with _prepared(source, target) as prepared:
        quantization.quantize_dynamic(
            prepared, target, op_types_to_quantize=_LINEAR, per_channel=True, weight_type=QuantType.QUInt8
        )


def quantize_static(source: Path, target: Path, images: NDArray[np.float32]) -> None:
    """Write a float32 file with 8-bit convolutions and linear layers; `images` `[n, *input_shape]` set the ranges.

    A range is from the least to the largest value. Weights use 7 of their 8 bits: without VNNI instructions, x86
    processors add pairs of products in 16 bits, where 8-bit weights overflow.
    """
    with _prepared(source, target) as prepared:
        quantization.quantize_static(
            prepared,
            target,
            CalibrationReader(prepared, images),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=_STATIC,
            per_channel=True,
            reduce_range=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )


@contextmanager
def _prepared(source: Path, target: Path) -> Iterator[Path]:
    """Yield a copy of a file, beside the target, with batch norms folded and shapes known; logging is off meanwhile."""
    prepared, root, handler = target.with_name(f"{target.name}.prepared"), logging.getLogger(), logging.NullHandler()
    root.addHandler(handler)  # else logging would add one that stays
    root.addFilter(_drop)  # what the quantizer logs on the root logger
    try:
        quant_pre_process(source, prepared, skip_symbolic_shape=True)
        yield prepared
    finally:
        root.removeFilter(_drop)
        root.removeHandler(handler)
        prepared.unlink(missing_ok=True)


def _drop(_: logging.LogRecord) -> bool:
    return False
