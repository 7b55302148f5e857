"""The device `executorch-cpu`: ExecuTorch on this machine's processor; needs the extra `executorch`."""

from export.devices.converted_cpu import ConvertedCpu
from export.formats.executorch_format import PRECISIONS


class ExecutorchCpu(ConvertedCpu):
    """Run models with ExecuTorch and XNNPACK, one image at a time; implements `ofa.devices.device.Device`.

    Args:
        threads: of one run, from 1 to the number of processors.
        precision: "float32" or "int8_static".
    """

    name, precisions, formats = "executorch-cpu", PRECISIONS, ("executorch",)
    runtime, package = "executorch", "executorch"
