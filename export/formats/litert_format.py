"""The model format `litert`: files for LiteRT, Google's runtime for phones; needs the extra `litert`."""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch.export import ExportedProgram

from export.errors import check_installed
from export.formats.converter import ConvertedFormat, Converter
from export.litert_session import LitertModel, check_litert
from ofa.devices.format import Logits

PRECISIONS = ("float32", "float16", "int8_dynamic", "int8_static")
"""Of weights and, in "int8_static", activations; inputs and outputs are float32 in all."""


class LitertFormat(ConvertedFormat):
    """LiteRT files for one image, `*.tflite`; implements `ofa.devices.format.Format`. They hold no metadata."""

    name, suffix, precisions = "litert", ".tflite", PRECISIONS
    converter = Converter("LiteRT", f"{__name__}:convert_program")

    def __init__(self) -> None:
        check_litert()
        check_installed("litert_torch", "litert-torch, which converts networks,", "litert")

    def load(self, path: Path) -> Logits:
        """Load a file with LiteRT on one thread."""
        return LitertModel(path)


def convert_program(program: ExportedProgram, path: Path, precision: str, images: NDArray[np.float32]) -> None:
    """Write a program for one image as a LiteRT file in a precision; `images` are for ranges of "int8_static"."""
    import litert_torch

    (sample,), _ = program.example_inputs
    model = litert_torch.convert(program.module(), (sample,))
    with tempfile.TemporaryDirectory() as folder:
        float32 = Path(folder, "float32.tflite")
        model.export(str(float32))
        if precision != "float32":
            _quantize(float32, precision, images)
        path.write_bytes(float32.read_bytes())


def _quantize(path: Path, precision: str, images: NDArray[np.float32]) -> None:
    """Rewrite a float32 file in another precision; layers that have none stay as they are."""
    from ai_edge_quantizer import qtyping, recipe
    from ai_edge_quantizer.quantizer import Quantizer

    quantizer, ranges, operator = Quantizer(str(path)), None, qtyping.TFLOperationName
    if precision == "float16":
        weights = qtyping.TensorQuantizationConfig(num_bits=16, dtype=qtyping.TensorDataType.FLOAT)
        computed: dict[str, Any] = {"compute_precision": qtyping.ComputePrecision.FLOAT, "explicit_dequantize": True}
        config = qtyping.OpQuantizationConfig(weight_tensor_config=weights, **computed)
        quantizer.update_quantization_recipe(".*", operator.ALL_SUPPORTED, config, "float_casting")
    elif precision == "int8_dynamic":
        quantizer.load_quantization_recipe(recipe.dynamic_wi8_afp32())
    else:
        quantizer.load_quantization_recipe(recipe.static_wi8_ai8())
        for end in (operator.INPUT, operator.OUTPUT):
            quantizer.update_quantization_recipe(".*", end, algorithm_key="no_quantize")
        ranges = _ranges(path, images, quantizer.get_quantization_recipe())
    quantizer.quantize(ranges).export_model(str(path), overwrite=True)


def _ranges(path: Path, images: NDArray[np.float32], recipe: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the range of each activation on images, from the least to the largest value.

    The quantizer's own are moving averages over images, which cut off large values.
    """
    from ai_edge_quantizer.calibrator import Calibrator
    from ai_edge_quantizer.recipe_manager import RecipeManager
    from ai_edge_quantizer.utils.qsv_utils import min_max_update

    manager = RecipeManager()
    manager.load_quantization_recipe(recipe)
    calibrator = Calibrator(str(path), num_threads=1, qsv_update_func=min_max_update)
    ((signature, tensors),) = calibrator.get_signature_list().items()
    (name,) = tensors["inputs"]
    calibrator.calibrate({signature: [{name: image[None]} for image in images]}, manager)
    ranges: dict[str, Any] = calibrator.get_model_qsvs()
    return ranges
