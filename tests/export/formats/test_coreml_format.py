import platform
import zipfile

import numpy as np
import pytest

import ofa
from ofa.core.errors import DeviceError, ExportError
from ofa.devices.format import create_format

ct = pytest.importorskip("coremltools", reason="needs the extra coreml")


def write(network, shape, path, precision="float32"):
    create_format("coreml").write(network, shape, path, precision=precision, images=np.empty(0), metadata={})


def spec_of(path, folder):
    with zipfile.ZipFile(path) as archive:
        archive.extractall(folder)
    return ct.utils.load_spec(str(folder / "model.mlpackage"))


@pytest.mark.parametrize(("precision", "bytes_each"), [("float32", 4), ("float16", 2)])
def test_the_package_takes_an_image_and_has_the_network_s_layers_and_weights(network, tmp_path, precision, bytes_each):
    path = tmp_path / "model.mlpackage.zip"
    write(network, (1, 28, 28), path, precision)
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    spec = spec_of(path, tmp_path)
    (images,), (logits,) = spec.description.input, spec.description.output
    assert (images.name, list(images.type.multiArrayType.shape)) == ("images", [1, 1, 28, 28])
    assert logits.name == "logits"
    blocks = spec.mlProgram.functions["main"].block_specializations.values()
    kinds = [operation.type for block in blocks for operation in block.operations]
    layers = [type(module).__name__ for module in network.modules()]
    assert kinds.count("conv") == layers.count("Conv2d")
    assert kinds.count("linear") == layers.count("Linear")
    (weights,) = tmp_path.glob("model.mlpackage/**/weight.bin")
    n_parameters = sum(parameter.numel() for parameter in network.parameters())
    assert 0.8 * bytes_each * n_parameters < weights.stat().st_size < 1.3 * bytes_each * n_parameters


def test_attention_is_refused_by_the_operator_and_nothing_is_written(tmp_path):
    family = ofa.create_family("hybrid_small")
    arch = family.space.smallest
    with pytest.raises(DeviceError, match=r'Core ML cannot convert it: .* Layer "view_1", with type "reshape"'):
        write(family.build(arch), family.input_shape(arch), tmp_path / "model.mlpackage.zip")
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(platform.system() == "Darwin", reason="runs there")
def test_elsewhere_than_on_macos_the_error_says_where_it_runs(tmp_path):
    with pytest.raises(DeviceError, match=r"m\.mlpackage\.zip: Core ML runs on macOS only; load it there"):
        create_format("coreml").load(tmp_path / "m.mlpackage.zip")


def test_what_is_not_allowed_is_named(network, tmp_path):
    with pytest.raises(ExportError, match="has no option 'opset'"):
        create_format("coreml", opset=18)
    with pytest.raises(DeviceError, match=r"coreml: precision = 'int8_static' is not known"):
        write(network, (1, 28, 28), tmp_path / "m.mlpackage.zip", "int8_static")
