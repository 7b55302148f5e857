import sys

import numpy as np
import pytest
import torch
from torch import nn

import ofa
from export.formats.converter import Converter
from ofa.core.errors import DeviceError, ExportError
from ofa.devices.device import Model
from ofa.devices.format import create_format

IMAGES = np.arange(6, dtype=np.float32).reshape(2, 3, 1, 1)


def keep(program, path, precision, images):
    """A converter that writes what the program computes for the images, and a lot to the terminal."""
    print("noise", flush=True)
    print("noise", file=sys.stderr, flush=True)
    outputs = [program.module()(image[None]).detach().numpy() for image in torch.from_numpy(images)]
    with path.open("wb") as file:
        np.savez(file, outputs=np.concatenate(outputs), precision=precision)


def fail(program, path, precision, images):  # noqa: ARG001
    path.write_bytes(b"half a file")
    raise ValueError("no operator\n  Frobnicate.")


def crash(program, path, precision, images):  # noqa: ARG001
    import os

    os.abort()


@pytest.fixture
def network():
    return nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Flatten())


def convert(function, network, path):
    converter = Converter("Runtime", f"{__name__}:{function}")
    converter(network, (3, 1, 1), path, "float32", IMAGES)
    return converter


def test_a_network_is_converted_in_eval_mode_and_nothing_reaches_the_terminal(network, tmp_path, capfd):
    network.train()
    converter = convert("keep", network, tmp_path / "a.npz")
    assert network.training
    with torch.no_grad():
        expected = network.eval()(torch.from_numpy(IMAGES)).numpy()
    written = np.load(tmp_path / "a.npz")
    assert np.allclose(written["outputs"], expected, atol=1e-6)
    assert str(written["precision"]) == "float32"
    first = converter._process.pid
    converter(network, (3, 1, 1), tmp_path / "b.npz", "int8", IMAGES)  # by the same process
    assert converter._process.pid == first
    assert str(np.load(tmp_path / "b.npz")["precision"]) == "int8"
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("function", "reason"), [("fail", "no operator Frobnicate"), ("crash", "the converter ended with code -6")]
)
def test_what_cannot_be_converted_is_one_error_and_leaves_no_file(network, tmp_path, function, reason):
    with pytest.raises(DeviceError, match=rf"a\.bin: Runtime cannot convert it: {reason}; use another format"):
        convert(function, network, tmp_path / "a.bin")
    assert not list(tmp_path.iterdir())


def test_after_a_crash_the_next_network_has_a_new_process(network, tmp_path):
    converter = Converter("Runtime", f"{__name__}:crash")
    for _ in range(2):
        with pytest.raises(DeviceError, match="the converter ended with code -6"):
            converter(network, (3, 1, 1), tmp_path / "a.bin", "float32", IMAGES)


def test_a_conversion_that_takes_too_long_is_ended(network, tmp_path, monkeypatch):
    monkeypatch.setattr("export.formats.converter._SECONDS", 0.5)
    with pytest.raises(DeviceError, match="the converter ended with code -9"):
        Converter("Runtime", "time:sleep")(network, (3, 1, 1), tmp_path / "a.bin", "float32", IMAGES)


def test_a_network_that_torch_cannot_export_is_one_error(tmp_path):
    class DependsOnData(nn.Module):
        def forward(self, x):
            return x if x.sum() > 0 else -x

    with pytest.raises(ExportError, match=r"a\.bin: torch cannot export the network: .*; avoid what depends on data"):
        convert("keep", DependsOnData(), tmp_path / "a.bin")
    assert not list(tmp_path.iterdir())


def test_modules_of_the_current_folder_are_not_imported(network, tmp_path, monkeypatch):
    (tmp_path / "json.py").write_text("raise SystemExit('executed')")
    monkeypatch.chdir(tmp_path)
    convert("keep", network, tmp_path / "a.npz")
    assert (tmp_path / "a.npz").is_file()


@pytest.mark.parametrize("family_name", ["small_mobilenet_v3", "hybrid_small"])
@pytest.mark.parametrize("name", ["litert", "executorch"])
def test_random_archs_give_the_logits_of_pytorch(name, family_name, tmp_path):
    pytest.importorskip({"litert": "litert_torch"}.get(name, name), reason=f"needs the extra {name}")
    family, rng = ofa.create_family(family_name), np.random.default_rng(0)
    (arch,) = map(family.space.decode, family.space.sample(1, rng))
    shape, model_format = family.input_shape(arch), create_format(name)
    network = Model(lambda: family.build(arch), shape).module()
    path = tmp_path / f"model{model_format.suffix}"
    model_format.write(network, shape, path, precision="float32", images=np.empty(0), metadata={})
    images = rng.standard_normal((2, *shape), dtype=np.float32)
    with torch.no_grad():
        expected = network(torch.from_numpy(images)).numpy()
    assert np.abs(model_format.load(path)(images) - expected).max() <= 1e-4 * np.abs(expected).max()
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
