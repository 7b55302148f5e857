"""The model format `coreml`: packages for Apple's devices; needs the extra `coreml`."""

import platform
import shutil
import tempfile
import zipfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch.export import ExportedProgram

from export.errors import check_installed, one_line
from export.formats.converter import ConvertedFormat, Converter
from export.session import INPUT, OUTPUT
from ofa.core.errors import DeviceError
from ofa.devices.format import Logits

PRECISIONS = ("float32", "float16")
"""In which Core ML computes, and in which the weights are kept."""


class CoremlFormat(ConvertedFormat):
    """Core ML packages for one image, as zip archives; implements `ofa.devices.format.Format`. They hold no metadata.

    They are written anywhere and run on macOS only, so elsewhere a file is known to have the right inputs, outputs and
    weights, but not the right logits.
    """

    name, suffix, precisions = "coreml", ".mlpackage.zip", PRECISIONS
    converter = Converter("Core ML", f"{__name__}:convert_program")

    def __init__(self) -> None:
        check_installed("coremltools", "coremltools", "coreml")

    def load(self, path: Path) -> Logits:
        """Load a file on macOS; DeviceError elsewhere."""
        if platform.system() != "Darwin":
            raise DeviceError(f"{path.name}: Core ML runs on macOS only; load it there")
        import coremltools

        with one_line(DeviceError, f"Core ML cannot load {path.name}", "export the network again"):
            folder = tempfile.TemporaryDirectory()
            with zipfile.ZipFile(path) as archive:
                archive.extractall(folder.name)
            model = coremltools.models.MLModel(f"{folder.name}/model.mlpackage")

        def run(images: NDArray[np.float32]) -> NDArray[np.float32]:
            assert folder  # the model's files are in it
            return np.concatenate([model.predict({INPUT: image[None]})[OUTPUT] for image in images])

        return run


def convert_program(
    program: ExportedProgram,
    path: Path,
    precision: str,
    images: NDArray[np.float32],  # noqa: ARG001
) -> None:
    """Write a program for one image as a zipped ML program for iOS 16, macOS 13 and later."""
    import coremltools as ct

    (sample,), _ = program.example_inputs
    classes = program.module()(sample).shape[1:]
    package = ct.convert(
        program.run_decompositions({}),
        inputs=[ct.TensorType(name=INPUT, shape=tuple(sample.shape))],
        outputs=[ct.TensorType(name=OUTPUT)],
        minimum_deployment_target=ct.target.iOS16,
        compute_precision=ct.precision.FLOAT16 if precision == "float16" else ct.precision.FLOAT32,
        skip_model_load=True,
    )
    found = {
        feature.name: tuple(feature.type.multiArrayType.shape)
        for feature in (*package.get_spec().description.input, *package.get_spec().description.output)
    }
    if found[INPUT] != tuple(sample.shape) or found.get(OUTPUT, ()) not in ((), (1, *classes)):
        raise ValueError(f"inputs and outputs became {found}")
    with tempfile.TemporaryDirectory() as folder:
        package.save(f"{folder}/model.mlpackage")
        archive = shutil.make_archive(f"{folder}/archive", "zip", folder, "model.mlpackage")
        path.write_bytes(Path(archive).read_bytes())
