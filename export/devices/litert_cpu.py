"""The device `litert-cpu`: LiteRT on this machine's processor; needs the extra `litert`."""

from export.devices.converted_cpu import ConvertedCpu
from export.formats.litert_format import PRECISIONS


class LitertCpu(ConvertedCpu):
    """Run models with LiteRT and XNNPACK, one image at a time; implements `ofa.devices.device.Device`.

    Args:
        threads: of one run, from 1 to the number of processors.
        precision: "float32", "float16" of the weights in the file, "int8_dynamic" or "int8_static".
    """

    name, precisions, formats = "litert-cpu", PRECISIONS, ("litert",)
    runtime, package = "litert", "ai-edge-litert"
