"""ONNX files in 8-bit integers, by ONNX Runtime's own quantizer.

- "int8_dynamic": weights are stored in 8 bits, ranges of activations are found anew in each run. For transformers.
- "int8_static": ranges of activations are found once, on calibration images. For convolutional networks.

Weights are quantized per output channel. Those of "int8_dynamic" are unsigned, as older ONNX Runtimes (1.19
for one) have no convolution of dynamic activations with signed weights. Those of "int8_static" use 7 of their 8 bits:
without VNNI instructions, x86 processors add pairs of products in 16 bits, where 8-bit weights overflow.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnxruntime.quantization import QuantFormat, QuantType, quantize_dynamic, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from export.session import INPUT
from ofa.core.errors import DeviceError

PRECISIONS = ("float32", "int8_dynamic", "int8_static")


def check_precision(device: str, precision: str) -> str:
    """One of `PRECISIONS`.

    Raises:
        DeviceError: another precision.
    """
    if precision not in PRECISIONS:
        raise DeviceError(f"{device}: precision = {precision!r} is not known; choose from {', '.join(PRECISIONS)}")
    return precision


def quantize(path: Path, precision: str, images: NDArray[np.float32]) -> None:
    """Rewrites a float ONNX file in a precision; "float32", and a model without weights, stay as they are.

    Args:
        path: a file that `export.formats.onnx.to_onnx` wrote.
        precision: one of `PRECISIONS`.
        images: `[n, ...]`, preprocessed, at least one, that "int8_static" finds ranges of activations on. Where only
            the time matters, random normal ones do: values do not change it.

    Raises:
        DeviceError: an unknown precision, no images, or a model that cannot be quantized.
    """
    if check_precision("quantize", precision) == "float32" or not onnx.load(path).graph.initializer:
        return
    if precision == "int8_static" and not len(images):
        raise DeviceError("quantize: int8_static has no images to find ranges on; give at least one")
    prepared = path.with_name(f"{path.name}.prepared")
    try:
        with _quiet():
            quant_pre_process(path, prepared, skip_symbolic_shape=True)
            if precision == "int8_dynamic":
                quantize_dynamic(prepared, path, per_channel=True, weight_type=QuantType.QUInt8)
            else:
                quantize_static(
                    prepared,
                    path,
                    _Images(images),
                    quant_format=QuantFormat.QDQ,
                    per_channel=True,
                    activation_type=QuantType.QUInt8,
                    weight_type=QuantType.QInt8,
                    reduce_range=True,
                )
    except Exception as error:  # the quantizer's have no common class
        raise DeviceError(f"{path.name} cannot be quantized to {precision}: {error}; use float32") from error
    finally:
        prepared.unlink(missing_ok=True)


class _Images:
    """Feeds images one by one; a `CalibrationDataReader` by what it has."""

    def __init__(self, images: NDArray[np.float32]) -> None:
        self._left = iter(images)

    def get_next(self) -> dict[str, NDArray[np.float32]] | None:
        image = next(self._left, None)
        return None if image is None else {INPUT: image[None]}


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what the quantizer says on the root logger, nor the handler that it would thereby give it."""
    root, nowhere = logging.getLogger(), logging.NullHandler()
    root.addHandler(nowhere)
    root.addFilter(_never)
    try:
        yield
    finally:
        root.removeFilter(_never)
        root.removeHandler(nowhere)


def _never(_: logging.LogRecord) -> bool:
    return False
