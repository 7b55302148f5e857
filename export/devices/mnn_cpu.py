"""The device `mnn-cpu`: MNN on this machine's processor; an extra, `pip install 'ofa[mnn]'`."""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import ClassVar

from export.devices.local import LocalRunner, check_batch, check_threads, describe, normal_images, onnx_file
from export.errors import check_choice
from export.formats.mnn_format import PRECISIONS, write_mnn
from export.mnn_session import MnnModel, import_mnn
from ofa.devices.device import Host, Model, Runner


class MnnCpu:
    """Run models with MNN; implements `ofa.devices.device.Device`. Each run passes the images in and the logits out.

    Args:
        threads: of one run, from 1 to the number of processors.
        precision: "float32", or "float16" of the weights in the file.
        batch: number of images in one run, from 1 to 4096.
    """

    name = "mnn-cpu"
    precisions: ClassVar[tuple[str, ...]] = PRECISIONS
    formats: ClassVar[tuple[str, ...]] = ("mnn",)

    def __init__(self, threads: int = 1, precision: str = "float32", batch: int = 1) -> None:
        check_choice(f"{self.name}: precision", precision, self.precisions)
        check_threads(self.name, threads)
        check_batch(self.name, batch)
        import_mnn()
        self.threads, self.precision, self.batch = threads, precision, batch
        self.hosts: Sequence[Host] = (self,)
        options = {"threads": threads, "precision": precision, "batch": batch}
        self.description = describe(self.name, "mnn", version("MNN"), **options)

    def load(self, model: Model) -> Runner:
        """Load the file of a model, or export and convert it first."""
        with _mnn_file(model, self.precision) as path:
            loaded = MnnModel(path, self.threads)
        return LocalRunner(self.name, partial(loaded, normal_images(self.batch, model.input_shape)))


@contextmanager
def _mnn_file(model: Model, precision: str) -> Iterator[Path]:
    if model.file is not None:
        yield model.file
        return
    with tempfile.TemporaryDirectory() as folder, onnx_file(model) as onnx_path:
        path = Path(folder) / "model.mnn"
        write_mnn(onnx_path, path, precision)
        yield path
