"""ONNX files in another precision than float32; their inputs and outputs stay float32."""

from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

from export.errors import check_choice, one_line
from export.formats.float16 import to_float16
from export.formats.int8 import quantize_dynamic, quantize_static
from ofa.core.errors import DeviceError
from ofa.core.files import replacing

PRECISIONS = ("float32", "float16", "int8_dynamic", "int8_static")


def convert(path: Path, precision: str, images: NDArray[np.float32]) -> None:
    """Rewrite a float32 ONNX file in a precision of `PRECISIONS`, with its metadata; the same images, the same file.

    - "float16": weights and activations in 16 bits. Half the size; on x86, ONNX Runtime casts them to float32 and back
      in each run, which takes longer.
    - "int8_dynamic": weights of linear layers in 8 bits, ranges of their inputs computed in each run; for transformers.
    - "int8_static": convolutions and linear layers in 8 bits, ranges of activations set once from `images`; for
      convolutional networks.

    A model without weights stays as it is.

    Args:
        path: of the file, which is rewritten whole or not at all.
        precision: one of `PRECISIONS`.
        images: preprocessed images `[n, *input_shape]`, best 100 to 500 of the training split. "int8_static" takes its
            ranges from them, "float16" is refused if an activation overflows on them, the others need none. Where
            only latency matters, a few random normal images do: it does not depend on values.

    Raises:
        DeviceError: unknown precision, no images where some are required, a value that float16 cannot hold, or a model
            that cannot be converted.
    """
    check_choice("precision", precision, PRECISIONS)
    model = onnx.load(path)
    if precision == "float32" or not model.graph.initializer:
        return
    if precision in ("float16", "int8_static") and not len(images):
        raise DeviceError(f"{precision} requires images to compute the ranges of activations; give at least one")
    with (
        replacing(path) as temporary,
        one_line(DeviceError, f"{path.name} cannot be converted to {precision}", "use float32"),
    ):
        if precision == "float16":
            to_float16(path, temporary, images)
        elif precision == "int8_dynamic":
            quantize_dynamic(path, temporary)
        else:
            quantize_static(path, temporary, images)
        converted = onnx.load(temporary)
        del converted.metadata_props[:]  # the quantizer's own
        converted.metadata_props.extend(model.metadata_props)
        onnx.save(converted, temporary)
