"""The device `ncnn-cpu`: ncnn on this machine's processor; needs the extra `ncnn`."""

from export.devices.converted_cpu import ConvertedCpu
from export.formats.ncnn_format import PRECISIONS


class NcnnCpu(ConvertedCpu):
    """Run models with ncnn, one image at a time; implements `ofa.devices.device.Device`.

    Args:
        threads: of one run, from 1 to the number of processors.
        precision: "float32", or "float16" of the weights in the file.
    """

    name, precisions, formats = "ncnn-cpu", PRECISIONS, ("ncnn",)
    runtime, package = "ncnn", "ncnn"
