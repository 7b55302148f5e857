import logging

import numpy as np
import onnx
import pytest
from torch import nn

import ofa
from export.formats.onnx import export_onnx
from export.formats.quantize import PRECISIONS, quantize
from export.preprocess import Preprocess
from export.session import INPUT, session
from ofa.core.errors import DeviceError

INT8 = PRECISIONS[1:]


@pytest.fixture
def batch(images):
    return Preprocess(28, 1, (0.3,), (0.4,))(images)


def outputs(path, batch):
    return session(path).run(None, {INPUT: batch})[0]


def operators(path):
    return {node.op_type for node in onnx.load(path).graph.node}


@pytest.mark.parametrize("precision", INT8)
def test_a_network_in_int8_is_smaller_and_computes_nearly_the_same(network, batch, tmp_path, precision):
    path = tmp_path / "model.onnx"
    export_onnx(network, (1, 28, 28), path)
    expected, size = outputs(path, batch), path.stat().st_size
    quantize(path, precision, batch)
    logits = outputs(path, batch)
    assert np.isfinite(logits).all()
    assert 0.9 < np.corrcoef(logits.ravel(), expected.ravel())[0, 1] < 1
    assert path.stat().st_size < 0.6 * size
    assert [file.name for file in tmp_path.iterdir()] == ["model.onnx"]


def test_static_ranges_are_stored_and_dynamic_ones_are_computed_in_each_run(network, batch, tmp_path):
    path = tmp_path / "model.onnx"
    for precision, operator in zip(INT8, ("DynamicQuantizeLinear", "QuantizeLinear"), strict=True):
        export_onnx(network, (1, 28, 28), path)
        quantize(path, precision, batch)
        assert {"DynamicQuantizeLinear", "QuantizeLinear"} & operators(path) == {operator}


def test_static_ranges_are_those_of_the_images(network, batch, tmp_path):
    errors = []
    for calibration in (batch, 1e-3 * batch):
        path = tmp_path / "model.onnx"
        export_onnx(network, (1, 28, 28), path)
        expected = outputs(path, batch)
        quantize(path, "int8_static", calibration)
        errors.append(np.abs(outputs(path, batch) - expected).mean())
    assert errors[1] > 3 * errors[0]


@pytest.mark.parametrize("precision", INT8)
@pytest.mark.parametrize("name", ["autoformer_tiny", "hybrid_small"])
def test_every_kind_of_block_of_transformers_can_be_quantized(tmp_path, precision, name):
    family, path, kinds = ofa.create_family(name), tmp_path / "block.onnx", set()
    size = family.resolutions[0]
    for slot, block in family.blocks(family.space.row(family.space.smallest)):
        if block is None or type(block) in kinds:
            continue
        kinds.add(type(block))
        shape = block.input_shape(slot.size(size))
        images = np.random.default_rng(0).standard_normal((2, *shape), dtype=np.float32)
        export_onnx(block.build().eval(), shape, path)
        expected = outputs(path, images)
        quantize(path, precision, images)
        assert np.corrcoef(outputs(path, images).ravel(), expected.ravel())[0, 1] > 0.9
    assert len(kinds) >= 3


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_model_without_weights_stays_as_it_is(tmp_path, precision):
    path = tmp_path / "identity.onnx"
    export_onnx(nn.Identity(), (1, 1, 1), path)
    before = path.read_bytes()
    quantize(path, precision, np.zeros((1, 1, 1, 1), dtype=np.float32))
    assert path.read_bytes() == before


def test_float32_stays_as_it_is(network, batch, tmp_path):
    path = tmp_path / "model.onnx"
    export_onnx(network, (1, 28, 28), path)
    before = path.read_bytes()
    quantize(path, "float32", batch)
    assert path.read_bytes() == before


def test_the_quantizer_is_quiet_and_logging_stays_as_it_was(tmp_path, caplog, capfd):
    root, path = logging.getLogger(), tmp_path / "model.onnx"
    before = (list(root.handlers), list(root.filters), root.level)
    export_onnx(nn.Sequential(nn.LayerNorm(5), nn.Linear(5, 3)), (7, 5), path)
    quantize(path, "int8_static", np.ones((2, 7, 5), dtype=np.float32))  # the quantizer warns of the norm's weights
    assert (root.handlers, root.filters, root.level) == before
    assert not caplog.records
    assert capfd.readouterr() == ("", "")
    logging.warning("heard")
    assert caplog.messages == ["heard"]


def test_an_unknown_precision_is_refused(tmp_path):
    with pytest.raises(DeviceError, match="precision = 'int4' is not known; choose from float32, int8_dyn"):
        quantize(tmp_path / "model.onnx", "int4", np.zeros((1, 1), dtype=np.float32))


def test_static_ranges_require_images(network, tmp_path):
    path = tmp_path / "model.onnx"
    export_onnx(network, (1, 28, 28), path)
    with pytest.raises(DeviceError, match="int8_static requires calibration images; give at least one"):
        quantize(path, "int8_static", np.zeros((0, 1, 28, 28), dtype=np.float32))


def test_a_failure_of_the_quantizer_is_one_line_and_the_file_stays(network, batch, tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise ValueError("Expected bias to be\nan initializer")

    path = tmp_path / "model.onnx"
    export_onnx(network, (1, 28, 28), path)
    before = path.read_bytes()
    monkeypatch.setattr("export.formats.quantize.quantize_static", refuse)
    with pytest.raises(
        DeviceError, match=r"^model.onnx cannot .* int8_static: Expected bias to be an initializer; use float32$"
    ):
        quantize(path, "int8_static", batch)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["model.onnx"]
