import numpy as np
import pytest

from export.formats.web_format import WebFormat
from export.web import assets
from ofa.core.errors import DeviceError
from ofa.devices.format import Format
from ofa.devices.registry import device_formats


@pytest.mark.usefixtures("vendor")
def test_it_writes_onnx_files(network, tmp_path):
    web: Format = WebFormat(opset=17)
    assert (web.name, web.suffix) == ("web", ".onnx")
    path = tmp_path / "model.onnx"
    images = np.zeros((1, 1, 28, 28), dtype=np.float32)
    web.write(network, (1, 28, 28), path, precision="float32", images=images, metadata={})
    assert web.load(path)(images).shape == (1, 10)


def test_without_onnxruntime_web_it_is_refused_before_any_work(monkeypatch, tmp_path):
    monkeypatch.setattr(assets, "VENDOR", tmp_path / "nothing")
    with pytest.raises(DeviceError, match="make web"):
        WebFormat()


def test_devices_that_run_onnx_files_run_those_of_the_web():
    for device in ("ort-cpu", "browser", "openvino-cpu"):
        assert {"onnx", "web"} <= set(device_formats(device))
    assert device_formats("mnn-cpu") == ("mnn",)
