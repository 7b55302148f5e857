import logging
import os
import subprocess
import sys
from contextlib import nullcontext

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, numpy_helper
from torch import nn

import ofa
from export.formats.calibration import CalibrationReader
from export.formats.onnx import Parity, check_parity, compare, export_onnx
from export.formats.onnx_format import OnnxFormat
from export.formats.precision import PRECISIONS, convert
from export.preprocess import Preprocess
from export.session import INPUT, run, session
from ofa.core.errors import DeviceError, ExportError

OTHERS = PRECISIONS[1:]


@pytest.fixture
def batch(images):
    return Preprocess(28, 1, (0.3,), (0.4,))(images)


def outputs(path, batch):
    return session(path).run(None, {INPUT: batch})[0]


def operators(path):
    return {node.op_type for node in onnx.load(path).graph.node}


def weight_types(path):
    return {TensorProto.DataType.Name(weight.data_type) for weight in onnx.load(path).graph.initializer}


LARGEST_SIZE = {"float16": 0.6, "int8_dynamic": 1.0, "int8_static": 0.5}


@pytest.mark.parametrize("precision", OTHERS)
def test_a_network_is_smaller_and_computes_nearly_the_same_in_float32_outside(network, batch, tmp_path, precision):
    path = tmp_path / "model.onnx"
    export_onnx(network, (1, 28, 28), path)
    expected, size = outputs(path, batch), path.stat().st_size
    convert(path, precision, batch)
    logits = outputs(path, batch)
    assert logits.dtype == np.float32
    assert np.isfinite(logits).all()
    assert 0.98 < np.corrcoef(logits.ravel(), expected.ravel())[0, 1] < 1
    assert path.stat().st_size < LARGEST_SIZE[precision] * size
    assert [file.name for file in tmp_path.iterdir()] == ["model.onnx"]


def test_static_ranges_are_stored_and_dynamic_ones_are_computed_in_each_run(network, batch, tmp_path):
    path = tmp_path / "model.onnx"
    kinds = zip(("int8_dynamic", "int8_static"), ("DynamicQuantizeLinear", "QuantizeLinear"), strict=True)
    for precision, operator in kinds:
        export_onnx(network, (1, 28, 28), path)
        convert(path, precision, batch)
        assert {"DynamicQuantizeLinear", "QuantizeLinear"} & operators(path) == {operator}


def test_static_weights_use_7_bits_and_a_scale_for_each_output_channel(network, batch, tmp_path):
    path = tmp_path / "model.onnx"
    export_onnx(network, (1, 28, 28), path)
    convert(path, "int8_static", batch)
    tensors = {weight.name: numpy_helper.to_array(weight) for weight in onnx.load(path).graph.initializer}
    kernels = {name: tensor for name, tensor in tensors.items() if tensor.dtype == np.int8 and tensor.ndim == 4}
    assert len(kernels) > 5
    for name, kernel in kernels.items():
        assert np.abs(kernel).max() == 64
        assert tensors[name.removesuffix("_quantized") + "_scale"].shape == kernel.shape[:1]


def test_dynamic_int8_leaves_convolutions_in_float32(network, batch, tmp_path):
    path = tmp_path / "model.onnx"
    export_onnx(network, (1, 28, 28), path)
    convert(path, "int8_dynamic", batch)
    assert "Conv" in operators(path)
    assert "ConvInteger" not in operators(path)


def test_float16_is_in_every_weight_and_within_its_rounding(network, batch, tmp_path):
    path = tmp_path / "model.onnx"
    export_onnx(network, (1, 28, 28), path)
    expected = outputs(path, batch)
    convert(path, "float16", batch)
    assert weight_types(path) - {"INT64"} == {"FLOAT16"}
    assert 0 < np.abs(outputs(path, batch) - expected).max() < 1e-2 * np.abs(expected).max()


@pytest.mark.parametrize(("weight", "scale"), [(1e5, 0.0), (300.0, 300.0)])
def test_values_that_float16_cannot_hold_are_refused_and_the_file_stays(tmp_path, weight, scale):
    path, linear = tmp_path / "model.onnx", nn.Linear(1, 2, bias=False)
    nn.init.constant_(linear.weight, weight)
    export_onnx(linear, (1,), path)
    before = path.read_bytes()
    with pytest.raises(
        DeviceError, match=r"to float16: tensor .* reaches (1e|9e)\+0[45], but float16 ends at 65504; use"
    ):
        convert(path, "float16", np.full((3, 1), scale, dtype=np.float32))
    assert path.read_bytes() == before


@pytest.mark.parametrize("precision", PRECISIONS)
def test_metadata_survive_and_nothing_is_added(network, batch, tmp_path, precision):
    path = tmp_path / "model.onnx"
    export_onnx(network, (1, 28, 28), path)
    model = onnx.load(path)
    onnx.helper.set_model_props(model, {"labels": '["cat"]'})
    onnx.save(model, path)
    convert(path, precision, batch)
    assert session(path).get_modelmeta().custom_metadata_map == {"labels": '["cat"]'}


@pytest.mark.parametrize("precision", OTHERS)
def test_a_fixed_batch_stays_fixed_and_any_number_of_images_sets_the_ranges(network, batch, tmp_path, precision):
    path = tmp_path / "model.onnx"
    export_onnx(network, (1, 28, 28), path, batch=4)
    expected = run(session(path), batch)
    convert(path, precision, batch)
    assert session(path).get_inputs()[0].shape == [4, 1, 28, 28]
    assert np.corrcoef(run(session(path), batch).ravel(), expected.ravel())[0, 1] > 0.98


@pytest.mark.parametrize(
    ("n", "fixed", "sizes"), [(5, None, [5]), (40, None, [16, 16, 8]), (6, 4, [4, 4]), (1, 4, [4])]
)
def test_every_image_is_in_a_batch_that_the_model_takes(tmp_path, n, fixed, sizes):
    path = tmp_path / "model.onnx"
    export_onnx(nn.Linear(2, 2), (2,), path, batch=fixed)
    reader = CalibrationReader(path, np.arange(2 * n, dtype=np.float32).reshape(n, 2))
    batches = [batch[INPUT] for batch in iter(reader.get_next, None)]
    assert [len(batch) for batch in batches] == sizes
    first = np.concatenate(batches)[:, 0]
    assert list(first) == [2.0 * (i % n) for i in range(sum(sizes))]


CONVERT = """
import sys
from pathlib import Path
import numpy as np
from export.formats.precision import convert
source, images = Path(sys.argv[1]).read_bytes(), np.load(sys.argv[2])
for path, precision in zip(map(Path, sys.argv[3:]), ("int8_static", "float16"), strict=True):
    path.write_bytes(source)
    convert(path, precision, images)
"""


def test_the_same_images_give_the_same_files_in_any_process(network, batch, tmp_path):
    path, images, files = tmp_path / "model.onnx", tmp_path / "images.npy", []
    export_onnx(network, (1, 28, 28), path)
    np.save(images, batch)
    for seed in ("1", "2"):
        targets = [tmp_path / f"{seed}-{i}.onnx" for i in range(2)]
        environment = os.environ | {"PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        subprocess.run([sys.executable, "-c", CONVERT, path, images, *targets], env=environment, check=True)
        files.append([target.read_bytes() for target in targets])
    assert files[0] == files[1]


def test_static_ranges_are_those_of_the_images(network, batch, tmp_path):
    errors = []
    for calibration in (batch, 1e-3 * batch):
        path = tmp_path / "model.onnx"
        export_onnx(network, (1, 28, 28), path)
        expected = outputs(path, batch)
        convert(path, "int8_static", calibration)
        errors.append(np.abs(outputs(path, batch) - expected).mean())
    assert errors[1] > 3 * errors[0]


@pytest.mark.parametrize("precision", OTHERS)
@pytest.mark.parametrize("name", ["autoformer_tiny", "hybrid_small"])
def test_every_kind_of_block_of_transformers_can_be_converted(tmp_path, precision, name):
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
        convert(path, precision, images)
        assert np.corrcoef(outputs(path, images).ravel(), expected.ravel())[0, 1] > 0.9
    assert len(kinds) >= 3


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_model_without_weights_stays_as_it_is(tmp_path, precision):
    path = tmp_path / "identity.onnx"
    export_onnx(nn.Identity(), (1, 1, 1), path)
    before = path.read_bytes()
    convert(path, precision, np.zeros((1, 1, 1, 1), dtype=np.float32))
    assert path.read_bytes() == before


def test_float32_stays_as_it_is(network, batch, tmp_path):
    path = tmp_path / "model.onnx"
    export_onnx(network, (1, 28, 28), path)
    before = path.read_bytes()
    convert(path, "float32", batch)
    assert path.read_bytes() == before


def test_the_quantizer_is_quiet_and_logging_stays_as_it_was(tmp_path, caplog, capfd):
    root, path = logging.getLogger(), tmp_path / "model.onnx"
    before = (list(root.handlers), list(root.filters), root.level)
    export_onnx(nn.Sequential(nn.LayerNorm(5), nn.Linear(5, 3)), (7, 5), path)
    convert(path, "int8_static", np.ones((2, 7, 5), dtype=np.float32))  # the quantizer warns of the norm's weights
    assert (root.handlers, root.filters, root.level) == before
    assert not caplog.records
    assert capfd.readouterr() == ("", "")
    logging.warning("heard")
    assert caplog.messages == ["heard"]


def test_an_unknown_precision_is_refused(tmp_path):
    with pytest.raises(DeviceError, match="precision = 'int4' is not known; choose from float32, float16, int8_dyn"):
        convert(tmp_path / "model.onnx", "int4", np.zeros((1, 1), dtype=np.float32))


@pytest.mark.parametrize("precision", ["float16", "int8_static"])
def test_ranges_of_activations_require_images(network, tmp_path, precision):
    path = tmp_path / "model.onnx"
    export_onnx(network, (1, 28, 28), path)
    with pytest.raises(DeviceError, match=f"{precision} requires images to compute the ranges .*; give at least one"):
        convert(path, precision, np.zeros((0, 1, 28, 28), dtype=np.float32))


def test_a_failure_of_the_quantizer_is_one_line_and_the_file_stays(network, batch, tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise ValueError("Expected bias to be\nan initializer")

    path = tmp_path / "model.onnx"
    export_onnx(network, (1, 28, 28), path)
    before = path.read_bytes()
    monkeypatch.setattr("export.formats.int8.quantization.quantize_static", refuse)
    with pytest.raises(
        DeviceError, match=r"^model.onnx cannot .* int8_static: Expected bias to be an initializer; use float32$"
    ):
        convert(path, "int8_static", batch)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["model.onnx"]


@pytest.mark.parametrize("precision", OTHERS)
def test_a_converted_network_passes_the_check_of_its_precision(network, batch, tmp_path, precision):
    path = tmp_path / "model.onnx"
    export_onnx(network, (1, 28, 28), path)
    convert(path, precision, batch)
    check_parity("model.onnx", compare(OnnxFormat().load(path), network, [torch.from_numpy(batch)]), precision)


@pytest.mark.parametrize(
    ("precision", "difference", "allowed"),
    [("float16", 0.09, True), ("float16", 0.11, False), ("int8_static", 9.0, True), ("int8_dynamic", np.nan, False)],
)
def test_float16_may_differ_by_one_percent_and_integers_must_be_finite(precision, difference, allowed):
    message = (
        rf"^level.onnx: {precision} differs from PyTorch by up to {difference:.3g} in logits up to 10; use float32$"
    )
    with nullcontext() if allowed else pytest.raises(ExportError, match=message):
        check_parity("level.onnx", Parity(difference, 10.0, 1.0, 4), precision)
