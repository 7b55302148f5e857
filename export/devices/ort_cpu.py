"""The device `ort-cpu`: ONNX Runtime on this machine's processor."""

from collections.abc import Sequence
from functools import partial
from typing import ClassVar

import onnxruntime as ort

from export.devices.local import LocalRunner, check_batch, check_threads, describe, normal_images, onnx_file
from export.errors import check_choice
from export.formats.precision import PRECISIONS
from export.session import INPUT, session
from ofa.devices.device import Host, Model, Runner


class OrtCpu:
    """Run models with ONNX Runtime, as they run once deployed; implements `ofa.devices.device.Device`.

    Each run is one plain `InferenceSession.run`, whose own cost of some microseconds counts.

    Args:
        threads: of one run, from 1 to the number of processors.
        precision: "float32", "float16", "int8_dynamic" or "int8_static"; see `export.formats.precision`.
        batch: number of images in one run, from 1 to 4096.
    """

    name = "ort-cpu"
    precisions: ClassVar[tuple[str, ...]] = PRECISIONS

    def __init__(self, threads: int = 1, precision: str = "float32", batch: int = 1) -> None:
        check_choice(f"{self.name}: precision", precision, self.precisions)
        check_threads(self.name, threads)
        check_batch(self.name, batch)
        self.threads, self.precision, self.batch = threads, precision, batch
        self.hosts: Sequence[Host] = (self,)
        options = {"threads": threads, "precision": precision, "batch": batch}
        self.description = describe(self.name, "onnxruntime", ort.__version__, **options)

    def load(self, model: Model) -> Runner:
        """Load the file of a model, or export it in the precision of the device."""
        with onnx_file(model, precision=self.precision) as path:
            loaded = session(path, self.threads)
        feed = {INPUT: normal_images(self.batch, model.input_shape)}
        return LocalRunner(self.name, partial(loaded.run, None, feed))
