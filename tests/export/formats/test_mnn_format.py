import subprocess

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper

import ofa
from export.formats import mnn_format
from export.formats.mnn_format import write_mnn
from ofa.core.errors import DeviceError, ExportError
from ofa.devices.device import Model
from ofa.devices.format import create_format

pytest.importorskip("_tools", reason="needs the extra mnn")

FAMILIES = ("small_mobilenet_v3", "hybrid_small", "autoformer_tiny")


def write(network, shape, path, precision="float32"):
    create_format("mnn").write(network, shape, path, precision=precision, images=np.empty(0), metadata={"a": "b"})


@pytest.mark.parametrize("name", FAMILIES)
def test_random_archs_give_the_logits_of_pytorch(name, tmp_path):
    family, rng = ofa.create_family(name), np.random.default_rng(0)
    archs = [family.space.smallest, *map(family.space.decode, family.space.sample(1, rng))]
    for arch in archs:
        shape = family.input_shape(arch)
        network = Model(lambda arch=arch: family.build(arch), shape).module()
        write(network, shape, tmp_path / "model.mnn")
        images = rng.standard_normal((2, *shape), dtype=np.float32)
        with torch.no_grad():
            expected = network(torch.from_numpy(images)).numpy()
        logits = create_format("mnn").load(tmp_path / "model.mnn")(images)
        assert np.abs(logits - expected).max() <= 1e-3 * np.abs(expected).max()
    assert [path.name for path in tmp_path.iterdir()] == ["model.mnn"]


def test_weights_of_16_bits_take_half_the_space_and_give_nearly_the_same(network, tmp_path):
    images = np.random.default_rng(0).standard_normal((4, 1, 28, 28), dtype=np.float32)
    sizes, logits = {}, {}
    for precision in ("float32", "float16"):
        path = tmp_path / f"{precision}.mnn"
        write(network, (1, 28, 28), path, precision)
        sizes[precision], logits[precision] = path.stat().st_size, create_format("mnn").load(path)(images)
    assert sizes["float16"] < 0.65 * sizes["float32"]
    assert 0 < np.abs(logits["float16"] - logits["float32"]).max() < 1e-2 * np.abs(logits["float32"]).max()


@pytest.fixture
def unknown_operator(tmp_path):
    images, logits = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 3]) for name in ("images", "logits"))
    graph = helper.make_graph(
        [helper.make_node("Frobnicate", ["images"], ["logits"], domain="x")], "g", [images], [logits]
    )
    versions = [helper.make_opsetid("", 18), helper.make_opsetid("x", 1)]
    path = tmp_path / "unknown.onnx"
    onnx.save(helper.make_model(graph, opset_imports=versions), path)
    return path


def test_an_operator_that_mnn_lacks_is_named_and_nothing_is_written(unknown_operator, tmp_path):
    with pytest.raises(DeviceError, match=r"model\.mnn: MNN has no operator ONNX::Frobnicate; use other operators"):
        write_mnn(unknown_operator, tmp_path / "model.mnn")
    assert [path.name for path in tmp_path.iterdir()] == ["unknown.onnx"]


def test_a_file_that_is_not_onnx_is_one_error(tmp_path):
    (tmp_path / "model.onnx").write_bytes(b"not a model")
    with pytest.raises(DeviceError, match=r"model\.mnn: MNN cannot convert it: .*; use other operators"):
        write_mnn(tmp_path / "model.onnx", tmp_path / "model.mnn")


def test_conversion_reads_no_module_of_the_folder_it_runs_in_and_sends_nothing(network, tmp_path, monkeypatch):
    """MNN's own command would install a package and report over the network; only its compiled part is used."""
    (tmp_path / "_tools.py").write_text("raise SystemExit('executed')")
    commands, run = [], subprocess.run

    def note(command, **options):
        commands.append(command)
        return run(command, **options)

    monkeypatch.setattr(mnn_format.subprocess, "run", note)
    monkeypatch.chdir(tmp_path)
    write(network, (1, 28, 28), tmp_path / "model.mnn")
    (command,) = commands
    assert command[1] == "-I"
    assert "MNN" not in command[3].replace("--MNNModel", "").replace("mnnconvert", "")


@pytest.mark.parametrize(
    ("options", "message"), [({"opset": 3}, "opset = 3 is not allowed"), ({"ort": True}, "has no option 'ort'")]
)
def test_an_option_that_is_not_allowed_is_named(options, message):
    with pytest.raises(ExportError, match=message):
        create_format("mnn", **options)


def test_a_precision_that_it_lacks_is_refused(network, tmp_path):
    with pytest.raises(DeviceError, match=r"mnn: precision = 'int8_static' is not known; choose from float32, float16"):
        write(network, (1, 28, 28), tmp_path / "model.mnn", "int8_static")
