import numpy as np
import pytest

from export.litert_session import LitertModel
from ofa.core.errors import ExportError
from ofa.devices.format import create_format

pytest.importorskip("litert_torch", reason="needs the extra litert")


def test_fewer_bits_take_less_space_and_give_nearly_the_same(network, tmp_path):
    images = np.random.default_rng(0).standard_normal((16, 1, 28, 28), dtype=np.float32)
    sizes, logits = {}, {}
    for precision in ("float32", "float16", "int8_dynamic", "int8_static"):
        path = tmp_path / f"{precision}.tflite"
        create_format("litert").write(network, (1, 28, 28), path, precision=precision, images=images, metadata={})
        sizes[precision], logits[precision] = path.stat().st_size, LitertModel(path)(images)
    largest = np.abs(logits["float32"]).max()
    off = {precision: np.abs(one - logits["float32"]).max() / largest for precision, one in logits.items()}
    assert sizes["int8_static"] < 0.5 * sizes["float32"]
    assert sizes["int8_dynamic"] < sizes["float16"] < 0.65 * sizes["float32"]
    assert 0 < off["float16"] < 0.01
    assert 0 < off["int8_dynamic"] < 0.1
    assert 0 < off["int8_static"] < 0.15


def test_it_has_no_options():
    with pytest.raises(ExportError, match="has no option 'opset'"):
        create_format("litert", opset=18)
