import numpy as np
import onnx
import pytest
from torch import nn

from export.formats.onnx_format import OnnxFormat
from export.session import session
from ofa.core.errors import ExportError
from ofa.devices.format import create_format


@pytest.fixture
def network():
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 6 * 6, 3)).eval()


@pytest.fixture
def images():
    return np.random.default_rng(0).standard_normal((5, 1, 8, 8), dtype=np.float32)


def write(model_format, network, images, path, precision="float32"):
    model_format.write(network, (1, 8, 8), path, precision=precision, images=images, metadata={"a": "b"})
    return onnx.load(path)


def test_the_default_is_a_float32_file_for_any_batch_with_its_metadata(network, images, tmp_path):
    model = write(create_format("onnx"), network, images, tmp_path / "model.onnx")
    assert [entry.version for entry in model.opset_import] == [18]
    assert {entry.key: entry.value for entry in model.metadata_props} == {"a": "b"}
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]
    logits = create_format("onnx").load(tmp_path / "model.onnx")(images)
    assert np.allclose(logits, session(tmp_path / "model.onnx").run(None, {"images": images})[0])


@pytest.mark.parametrize("precision", ["float32", "float16", "int8_dynamic", "int8_static"])
def test_a_fixed_batch_an_opset_and_ort_files_are_options(network, images, tmp_path, precision):
    model_format = create_format("onnx", opset=15, batch=2, ort=True)
    model = write(model_format, network, images, tmp_path / "model.onnx", precision)
    assert max(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")) == 15
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_value == 2
    logits = model_format.load(tmp_path / "model.onnx")(images)
    assert logits.shape == (5, 3)
    by_ort_file = model_format.load(tmp_path / "model.ort")(images)
    assert np.abs(logits - by_ort_file).max() <= 0.1 * np.abs(logits).max()
    exact = OnnxFormat()
    write(exact, network, images, tmp_path / "exact.onnx")
    assert np.abs(logits - exact.load(tmp_path / "exact.onnx")(images)).max() <= 0.1 * np.abs(logits).max()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"opset": 3}, "opset = 3 is not allowed"),
        ({"batch": 0}, "batch = 0 is not allowed"),
        ({"ort": "yes"}, "ort = 'yes' is not known"),
        ({"opsett": 17}, "model format 'onnx' has no option 'opsett'; did you mean opset"),
    ],
)
def test_an_option_that_is_not_allowed_is_named(options, message):
    with pytest.raises(ExportError, match=message):
        create_format("onnx", **options)


def test_an_unknown_format_is_named():
    with pytest.raises(ExportError, match="unknown model format 'onxx'; did you mean onnx"):
        create_format("onxx")
