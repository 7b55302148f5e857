import numpy as np
import pytest

from export.executorch_session import ExecutorchModel
from ofa.core.errors import ExportError
from ofa.devices.format import create_format

pytest.importorskip("executorch", reason="needs the extra executorch")


def test_8_bits_take_less_space_and_give_nearly_the_same(network, tmp_path):
    images = np.random.default_rng(0).standard_normal((16, 1, 28, 28), dtype=np.float32)
    sizes, logits = {}, {}
    for precision in ("float32", "int8_static"):
        path = tmp_path / f"{precision}.pte"
        create_format("executorch").write(network, (1, 28, 28), path, precision=precision, images=images, metadata={})
        sizes[precision], logits[precision] = path.stat().st_size, ExecutorchModel(path)(images)
    difference = np.abs(logits["int8_static"] - logits["float32"]).max()
    assert sizes["int8_static"] < 0.5 * sizes["float32"]
    assert 0 < difference < 0.3 * np.abs(logits["float32"]).max()


def test_it_has_no_options():
    with pytest.raises(ExportError, match="has no option 'opset'"):
        create_format("executorch", opset=18)
