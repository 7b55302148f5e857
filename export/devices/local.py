"""What devices have in common: their description, ONNX files and inputs of models, and the timing of runs."""

import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnxruntime.tools.onnx_model_utils import make_dim_param_fixed

from export.errors import check_number, one_line
from export.formats.onnx import export_onnx
from export.formats.precision import convert
from export.machine import operating_system, processor, time_runs
from export.session import session
from ofa.core.errors import DeviceError
from ofa.devices.device import Model

ToFile = Callable[[Model], AbstractContextManager[Path]]
"""Give the file of a model, such as `onnx_file` with some of its options."""

CALIBRATION_IMAGES = 4
"""Random images that set the ranges of activations where only latency matters."""
ADVICE = "use float32 and common operators, or another device"


def describe(device: str, runtime: str, version: str, **more: Any) -> dict[str, Any]:
    """Return the description of a device on this machine that a latency table records; `more` overrides entries."""
    return {
        "device": device,
        "runtime": runtime,
        "runtime_version": version,
        "processor": processor(),
        "os": operating_system(),
        "threads": 1,
        "precision": "float32",
        "batch": 1,
        "torch_version": str(torch.__version__),
    } | more


def shared_description(device: str, descriptions: Mapping[str, dict[str, Any]], **more: Any) -> dict[str, Any]:
    """Return the description that all hosts of a device share, from theirs by name; `more` overrides entries.

    Two hosts that differ are a DeviceError.
    """
    (first, expected), *others = descriptions.items()
    for other, description in others:
        for key, value in description.items():
            if value != expected[key]:
                difference = f"{first} has {key} {expected[key]!r}, {other} has {value!r}"
                raise DeviceError(f"{device}: {difference}; measure on hosts of one kind")
    return {"device": device} | expected | {"torch_version": str(torch.__version__)} | more


def check_threads(device: str, threads: int) -> None:
    """Refuse a number of threads that is not from 1 to the number of processors."""
    check_number(f"{device}: threads", threads, 1, os.cpu_count() or 1, whole=True)


def check_batch(device: str, batch: int) -> None:
    """Refuse a number of images in one run that is not from 1 to 4096."""
    check_number(f"{device}: batch", batch, 1, 4096, whole=True)


def normal_images(n: int, input_shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Return random normal inputs `[n, *input_shape]`, the same in each call."""
    return np.random.default_rng(0).standard_normal((n, *input_shape), dtype=np.float32)


@contextmanager
def onnx_file(model: Model, *, precision: str = "float32", batch: int | None = None) -> Iterator[Path]:
    """Yield the file of a model; if it has none, an ONNX file of that precision in a temporary folder.

    Errors are those of `export_onnx` and `convert`. Ranges of activations are those of random images.

    `batch` is for programs that cannot be told a batch, and run a file that takes any at 1: what they get is fixed to
    it, unless it is 1. A model's own file that has another fixed batch, or cannot be fixed, is a DeviceError.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        if model.file is None:
            export_onnx(model.module(), model.input_shape, path, batch=None if batch == 1 else batch)
            convert(path, precision, normal_images(CALIBRATION_IMAGES, model.input_shape))
        yield path if model.file is None else _with_batch(model.file, batch, path)


def _with_batch(file: Path, batch: int | None, target: Path) -> Path:
    """Return a file that runs at a batch: itself, or if it takes any, `target`, written with the batch fixed."""
    size = session(file).get_inputs()[0].shape[0] if batch is not None else None
    if batch is None or size == batch or (batch == 1 and not isinstance(size, int)):
        return file
    if isinstance(size, int) or file.suffix != ".onnx":
        actual = f"has batch {size}" if isinstance(size, int) else "takes any batch, and is not an ONNX file"
        raise DeviceError(f"{file.name} {actual}, but the device's batch is {batch}; export it with batch={batch}")
    fixed = onnx.load(file)
    make_dim_param_fixed(fixed.graph, str(size), batch)
    onnx.save(fixed, target)
    return target


@dataclass(frozen=True)
class LocalRunner:
    """Time the runs of a model on this machine; implements `ofa.devices.device.Runner`."""

    device: str
    run: Callable[[], Any]
    """Run the model once, and return when the result is there."""

    def __call__(self, n: int) -> list[float]:
        """Return the milliseconds of each of `n` runs."""
        with one_line(DeviceError, f"{self.device} cannot run a model", ADVICE):
            return time_runs(self.run, n)
