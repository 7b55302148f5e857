"""The device `mnn-cpu`: MNN on this machine's processor; needs the extra `mnn`."""

from export.devices.converted_cpu import ConvertedCpu
from export.devices.local import check_batch
from export.formats.mnn_format import PRECISIONS


class MnnCpu(ConvertedCpu):
    """Run models with MNN; implements `ofa.devices.device.Device`. Each run passes the images in and the logits out.

    Args:
        threads: of one run, from 1 to the number of processors.
        precision: "float32", or "float16" of the weights in the file.
        batch: number of images in one run, from 1 to 4096.
    """

    name, precisions, formats = "mnn-cpu", PRECISIONS, ("mnn",)
    runtime, package = "mnn", "MNN"

    def __init__(self, threads: int = 1, precision: str = "float32", batch: int = 1) -> None:
        super().__init__(threads, precision)
        check_batch(self.name, batch)
        self.batch = batch
