"""The device `ort-cpu`: ONNX Runtime on this machine's processor."""

from collections.abc import Sequence
from functools import partial

import onnxruntime as ort

from export.devices.local import LocalRunner, check_batch, check_threads, describe, normal_images, onnx_file
from export.errors import check_choice
from export.formats.quantize import PRECISIONS, quantize
from export.session import INPUT, session
from ofa.devices.device import Host, Model, Runner

_CALIBRATION_IMAGES = 4


class OrtCpu:
    """Run models with ONNX Runtime, as they run once deployed; implements `ofa.devices.device.Device`.

    Each run is one plain `InferenceSession.run`, whose own cost of some microseconds counts.

    Args:
        threads: of one run, from 1 to the number of processors.
        precision: "float32", "int8_dynamic" or "int8_static"; see `export.formats.quantize`.
        batch: number of images in one run, from 1 to 4096.
    """

    name = "ort-cpu"

    def __init__(self, threads: int = 1, precision: str = "float32", batch: int = 1) -> None:
        check_choice(f"{self.name}: precision", precision, PRECISIONS)
        check_threads(self.name, threads)
        check_batch(self.name, batch)
        self.threads, self.precision, self.batch = threads, precision, batch
        self.hosts: Sequence[Host] = (self,)
        options = {"threads": threads, "precision": precision, "batch": batch}
        self.description = describe(self.name, "onnxruntime", ort.__version__, **options)

    def load(self, model: Model) -> Runner:
        """Export a model, quantize it if the precision says so, and load it."""
        with onnx_file(model) as path:
            if model.file is None:
                quantize(path, self.precision, normal_images(_CALIBRATION_IMAGES, model.input_shape))
            loaded = session(path, self.threads)
        feed = {INPUT: normal_images(self.batch, model.input_shape)}
        return LocalRunner(self.name, partial(loaded.run, None, feed))
