"""What devices have in common that run files of another runtime than ONNX Runtime on this machine's processor."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar

from export.devices.local import CALIBRATION_IMAGES, LocalRunner, check_threads, describe, normal_images
from export.errors import check_choice
from export.model_files import load_model
from ofa.devices.device import Host, Model, Runner
from ofa.devices.format import Format, create_format


class ConvertedCpu:
    """Run model files with one image at a time; implements `ofa.devices.device.Device` and `Host`.

    A subclass says what it is called, which format it runs, and which package its runtime comes in, whose name without
    suffix the description has. Each run passes the images in and the logits out.

    Args:
        threads: of one run, from 1 to the number of processors.
        precision: one of `precisions`.

    Raises:
        DeviceError: the runtime is not installed, or an option is not allowed.
    """

    name: ClassVar[str]
    precisions: ClassVar[tuple[str, ...]]
    formats: ClassVar[tuple[str, ...]]
    runtime: ClassVar[str]
    package: ClassVar[str]
    batch = 1

    def __init__(self, threads: int = 1, precision: str = "float32") -> None:
        check_choice(f"{self.name}: precision", precision, self.precisions)
        check_threads(self.name, threads)
        self._format = create_format(self.formats[0])
        self.threads, self.precision = threads, precision
        self.hosts: tuple[Host, ...] = (self,)

    @property
    def description(self) -> dict[str, Any]:
        """What a latency table records."""
        options = {"threads": self.threads, "precision": self.precision, "batch": self.batch}
        return describe(self.name, self.runtime, version(self.package), **options)

    def load(self, model: Model) -> Runner:
        """Load the file of a model, or export and convert it first."""
        with converted_file(model, model_format=self._format, precision=self.precision) as path:
            loaded = load_model(self._format.name, path, self.threads)
        return LocalRunner(self.name, partial(loaded, normal_images(self.batch, model.input_shape)))


@contextmanager
def converted_file(model: Model, *, model_format: Format, precision: str) -> Iterator[Path]:
    """Yield the file of a model; if it has none, one of that format and precision in a temporary folder.

    Errors are those of `Format.write`. Ranges of activations are those of random images.
    """
    if model.file is not None:
        yield model.file
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"model{model_format.suffix}")
        images = normal_images(CALIBRATION_IMAGES, model.input_shape)
        model_format.write(model.module(), model.input_shape, path, precision=precision, images=images, metadata={})
        yield path
