"""The model format `web`: ONNX files whose bundle is a web site, which classifies in the browser; see `docs/web.md`."""

from export.formats.onnx_format import OnnxFormat
from export.web.assets import assets


class WebFormat(OnnxFormat):
    """ONNX files in a bundle that any static server serves; implements `ofa.devices.format.Format`.

    Args:
        opset: version of ONNX's operators, 13 to 20.

    Raises:
        DeviceError: onnxruntime-web is not there.
    """

    name = "web"

    def __init__(self, opset: int = 18) -> None:
        super().__init__(opset)
        assets()
