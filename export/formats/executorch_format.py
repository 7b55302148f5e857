"""The model format `executorch`: files for PyTorch's runtime for phones; needs the extra `executorch`."""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch.export import ExportedProgram

from export.executorch_session import ExecutorchModel, check_executorch
from export.formats.converter import ConvertedFormat, Converter
from ofa.devices.format import Logits

PRECISIONS = ("float32", "int8_static")


class ExecutorchFormat(ConvertedFormat):
    """ExecuTorch files for one image, `*.pte`; implements `ofa.devices.format.Format`. They hold no metadata.

    XNNPACK runs what it can, and ExecuTorch's own operators the rest, which are slow.
    """

    name, suffix, precisions = "executorch", ".pte", PRECISIONS
    converter = Converter("ExecuTorch", f"{__name__}:convert_program")

    def __init__(self) -> None:
        check_executorch()

    def load(self, path: Path) -> Logits:
        """Load a file with ExecuTorch on one thread."""
        return ExecutorchModel(path)


def convert_program(program: ExportedProgram, path: Path, precision: str, images: NDArray[np.float32]) -> None:
    """Write a program for one image as an ExecuTorch file in a precision; `images` are for ranges of "int8_static"."""
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower

    if precision == "int8_static":
        program = _quantized(program, images)
    lowered = to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner()])
    with path.open("wb") as file:
        lowered.to_executorch().write_to_file(file)


def _quantized(program: ExportedProgram, images: NDArray[np.float32]) -> ExportedProgram:
    """Return the program with convolutions and linear layers in 8 bits, weights per channel."""
    from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import (
        XNNPACKQuantizer,
        get_symmetric_quantization_config,
    )
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

    quantizer = XNNPACKQuantizer().set_global(get_symmetric_quantization_config(is_per_channel=True))
    prepared = prepare_pt2e(program.module(), quantizer)
    for image in torch.from_numpy(images):
        prepared(image[None])
    return torch.export.export(convert_pt2e(prepared), (torch.zeros_like(image[None]),))
