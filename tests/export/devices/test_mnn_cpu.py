import numpy as np
import pytest

from export.devices.local import describe
from export.devices.mnn_cpu import MnnCpu
from export.devices.ort_cpu import OrtCpu
from ofa.core.errors import DeviceError
from ofa.devices.device import Model

pytest.importorskip("_tools", reason="needs the extra mnn")


def test_a_batch_gives_the_logits_of_onnx_runtime(network):
    model = Model.of(network, (1, 28, 28))
    (expected,) = OrtCpu(batch=4).load(model).run()
    device = MnnCpu(batch=4)
    assert device.description == describe("mnn-cpu", "mnn", device.description["runtime_version"], batch=4)
    assert np.abs(device.load(model).run() - expected).max() < 1e-5 * np.abs(expected).max()


def test_a_batch_that_is_not_allowed_is_named():
    with pytest.raises(DeviceError, match="mnn-cpu: batch = 0 is not allowed"):
        MnnCpu(batch=0)
