"""The device `openvino-cpu`: OpenVINO on this machine's processor; needs the extra `openvino`."""

import importlib
import sys
from collections.abc import Sequence
from functools import cache, partial
from types import ModuleType
from typing import Any, ClassVar

from export.devices.local import ADVICE, LocalRunner, check_batch, check_threads, describe, normal_images, onnx_file
from export.errors import check_choice, one_line
from ofa.core.errors import DeviceError
from ofa.devices.device import Host, Model, Runner


class OpenvinoCpu:
    """Run models with OpenVINO, one at a time in one stream; implements `ofa.devices.device.Device`.

    With OpenVINO's hint for latency the times are the same, but the first run binds each weight to a NUMA node, for
    which the system maps it separately: a transformer then has 250 of the 65530 maps that a Linux process may have,
    beyond which OpenVINO aborts, and 30 without the hint.

    Where the processor can, OpenVINO computes in bfloat16 by default; here it computes in float32, as the other
    devices do, and int8_static in integers. It has no integers for int8_dynamic.

    Args:
        threads: of one run, from 1 to the number of processors.
        precision: "float32", "float16" (of the weights in the file) or "int8_static".
        batch: number of images in one run, from 1 to 4096.
    """

    name = "openvino-cpu"
    precisions: ClassVar[tuple[str, ...]] = ("float32", "float16", "int8_static")

    def __init__(self, threads: int = 1, precision: str = "float32", batch: int = 1) -> None:
        check_choice(f"{self.name}: precision", precision, self.precisions)
        check_threads(self.name, threads)
        check_batch(self.name, batch)
        self.threads, self.precision, self.batch = threads, precision, batch
        self.hosts: Sequence[Host] = (self,)
        self._openvino, self._core = _import_openvino(), _core()
        options = {"threads": threads, "precision": precision, "batch": batch}
        version = str(self._openvino.get_version())
        self.description = describe(self.name, "openvino", version, **options)

    def load(self, model: Model) -> Runner:
        """Compile the file of a model, or export it first, for the batch."""
        options = {
            "PERFORMANCE_HINT": "THROUGHPUT",
            "NUM_STREAMS": "1",
            "INFERENCE_NUM_THREADS": self.threads,
            "INFERENCE_PRECISION_HINT": "f32",
        }
        with (
            onnx_file(model, precision=self.precision) as path,
            one_line(DeviceError, f"{self.name} cannot load a model", ADVICE),
        ):
            network = self._core.read_model(path)
            network.reshape([self.batch, *model.input_shape])
            request = self._core.compile_model(network, "CPU", options).create_infer_request()
            request.set_input_tensor(self._openvino.Tensor(normal_images(self.batch, model.input_shape)))
        return LocalRunner(self.name, partial(request.infer, share_outputs=True))


@cache
def _core() -> Any:
    """Return the one core of this process.

    Each core has the main thread handle signals on a stack of its own, which is freed with the core. When two are
    dropped in the order in which they were created, the second leaves the thread with the freed stack of the first,
    and the next signal, such as that of a child process that ended, crashes the process.
    """
    core = _import_openvino().Core()
    core.set_property({"ENABLE_MMAP": False})  # some systems do not remove a file that is mapped
    return core


def _import_openvino() -> ModuleType:
    """Import OpenVINO without its telemetry, which would send a message from a thread of its own on import."""
    telemetry = "openvino_telemetry"
    hidden = telemetry not in sys.modules
    if hidden:
        sys.modules[telemetry] = None  # type: ignore[assignment]  # OpenVINO does without a package that is missing
    try:
        return importlib.import_module("openvino")
    except ImportError as error:
        raise DeviceError(
            f"OpenVINO is not installed ({error}); run in the checkout: pip install -e '.[openvino]'"
        ) from error
    finally:
        if hidden:
            del sys.modules[telemetry]
