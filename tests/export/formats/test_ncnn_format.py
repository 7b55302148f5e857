import json
import subprocess
import zipfile

import numpy as np
import pytest
import torch

import ofa
from export.formats import ncnn_format
from export.formats.onnx import export_onnx
from export.ncnn_session import NcnnModel
from ofa.core.errors import DeviceError, ExportError
from ofa.devices.device import Model
from ofa.devices.format import create_format

pytest.importorskip("ncnn", reason="needs the extra ncnn")


def write(network, shape, path, precision="float32"):
    create_format("ncnn").write(network, shape, path, precision=precision, images=np.empty(0), metadata={"a": "b"})


@pytest.mark.parametrize("name", ["small_mobilenet_v3", "ofa_resnet50"])
def test_random_archs_give_the_logits_of_pytorch(name, tmp_path):
    family, rng = ofa.create_family(name), np.random.default_rng(0)
    for arch in [family.space.smallest, *map(family.space.decode, family.space.sample(1, rng))]:
        shape = family.input_shape(arch)
        network = Model(lambda arch=arch: family.build(arch), shape).module()
        write(network, shape, tmp_path / "model.ncnn")
        images = rng.standard_normal((2, *shape), dtype=np.float32)
        with torch.no_grad():
            expected = network(torch.from_numpy(images)).numpy()
        logits = create_format("ncnn").load(tmp_path / "model.ncnn")(images)
        assert np.abs(logits - expected).max() <= 1e-3 * np.abs(expected).max()
    assert [path.name for path in tmp_path.iterdir()] == ["model.ncnn"]


def test_the_archive_holds_the_files_that_apps_load_and_what_the_model_is(network, tmp_path):
    write(network, (1, 28, 28), tmp_path / "model.ncnn")
    with zipfile.ZipFile(tmp_path / "model.ncnn") as archive:
        assert archive.namelist() == ["model.param", "model.bin", "model.json"]
        assert archive.read("model.param").startswith(b"7767517\n")  # ncnn's magic number
        assert json.loads(archive.read("model.json")) == {"input_shape": [1, 28, 28], "metadata": {"a": "b"}}


def test_weights_of_16_bits_take_half_the_space_and_give_nearly_the_same(network, tmp_path):
    images = np.random.default_rng(0).standard_normal((4, 1, 28, 28), dtype=np.float32)
    sizes, logits = {}, {}
    for precision in ("float32", "float16"):
        path = tmp_path / f"{precision}.ncnn"
        write(network, (1, 28, 28), path, precision)
        sizes[precision], logits[precision] = path.stat().st_size, NcnnModel(path)(images)
    assert sizes["float16"] < 0.65 * sizes["float32"]
    assert 0 < np.abs(logits["float16"] - logits["float32"]).max() < 1e-2 * np.abs(logits["float32"]).max()


def test_attention_is_refused_by_the_operator_and_nothing_is_written(tmp_path):
    family = ofa.create_family("hybrid_small")
    arch = family.space.smallest
    with pytest.raises(DeviceError, match=r"model\.ncnn: ncnn cannot express it: Tensor\.reshape; use other operators"):
        write(family.build(arch), family.input_shape(arch), tmp_path / "model.ncnn")
    assert not list(tmp_path.iterdir())


def test_a_file_that_is_not_onnx_is_one_error(tmp_path):
    (tmp_path / "model.onnx").write_bytes(b"not a model")
    with pytest.raises(DeviceError, match=r"model\.ncnn: pnnx cannot convert it: .*; use another format"):
        ncnn_format.write_ncnn(tmp_path / "model.onnx", (1, 28, 28), tmp_path / "model.ncnn")
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]


def test_what_crashes_in_ncnn_is_refused(network, tmp_path, monkeypatch):
    export_onnx(network, (1, 28, 28), tmp_path / "model.onnx", batch=1)
    monkeypatch.setattr(ncnn_format, "_RUN", "import os; os.abort()")
    with pytest.raises(DeviceError, match=r"model\.ncnn: ncnn cannot run it: it ends with code -6; use another format"):
        ncnn_format.write_ncnn(tmp_path / "model.onnx", (1, 28, 28), tmp_path / "model.ncnn")
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]


def test_conversion_reads_no_module_of_the_folder_it_runs_in(network, tmp_path, monkeypatch):
    (tmp_path / "ncnn.py").write_text("raise SystemExit('executed')")
    monkeypatch.chdir(tmp_path)
    commands, run = [], subprocess.run
    monkeypatch.setattr(ncnn_format.subprocess, "run", lambda *a, **o: commands.append(a[0]) or run(*a, **o))
    write(network, (1, 28, 28), tmp_path / "model.ncnn")
    assert [command[1] for command in commands][1] == "-I"


@pytest.mark.parametrize("damage", ["short", "no bin", "compressed", "shape"])
def test_a_damaged_archive_is_one_error(network, tmp_path, damage):
    write(network, (1, 28, 28), tmp_path / "good.ncnn")
    with zipfile.ZipFile(tmp_path / "good.ncnn") as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    if damage == "short":
        files["model.bin"] = files["model.bin"][:1000]
    elif damage == "no bin":
        del files["model.bin"]
    elif damage == "shape":
        files["model.json"] = b"{}"
    compression = zipfile.ZIP_DEFLATED if damage == "compressed" else zipfile.ZIP_STORED
    with zipfile.ZipFile(tmp_path / "model.ncnn", "w", compression) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    with pytest.raises(DeviceError, match=r"ncnn cannot load model\.ncnn: .*; export the network again"):
        NcnnModel(tmp_path / "model.ncnn")


@pytest.mark.parametrize(
    ("options", "message"), [({"opset": 3}, "opset = 3 is not allowed"), ({"ort": True}, "has no option 'ort'")]
)
def test_an_option_that_is_not_allowed_is_named(options, message):
    with pytest.raises(ExportError, match=message):
        create_format("ncnn", **options)
