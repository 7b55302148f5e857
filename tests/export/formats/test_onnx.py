import copy
import warnings

import numpy as np
import onnx
import pytest
import torch
from torch import nn

import export.formats.onnx
from export.formats.onnx import export_checked, parity, to_onnx
from export.preprocess import Preprocess
from export.session import session
from ofa.core.errors import ExportError


@pytest.fixture
def batch(images):
    return torch.from_numpy(Preprocess(28, 1, (0.3,), (0.4,))(images))


def test_a_network_becomes_a_file_that_computes_the_same_at_any_batch_size(network, batch, tmp_path):
    result = export_checked(network, (1, 28, 28), [batch[:1], batch], tmp_path / "model.onnx")
    assert result.max_abs_diff < 1e-4
    assert (result.same_top1, result.n_images) == (1.0, 7)
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]
    graph = onnx.load(tmp_path / "model.onnx").graph
    assert [i.name for i in graph.input] == ["images"]
    assert [o.name for o in graph.output] == ["logits"]
    assert graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"


def test_channels_last_weights(network, batch, tmp_path):
    turned = copy.deepcopy(network).to(memory_format=torch.channels_last)
    images = [batch.to(memory_format=torch.channels_last)]
    assert export_checked(turned, (1, 28, 28), images, tmp_path / "model.onnx").same_top1 == 1.0


def test_every_block_of_a_family_exports_alone(family, tmp_path):
    row = family.space.row(family.space.smallest)
    for slot, block in family.blocks(row):
        if block is not None:
            module, shape = block.build().eval(), block.input_shape(slot.size(28))
            to_onnx(module, shape, tmp_path / "block.onnx")
            images = torch.randn(3, *shape)
            assert parity(session(tmp_path / "block.onnx"), module, [images]).max_abs_diff < 1e-4


def test_modules_without_parameters_export(tmp_path):
    to_onnx(nn.Identity(), (1, 4, 4), tmp_path / "identity.onnx")
    images = np.ones((2, 1, 4, 4), dtype=np.float32)
    (same,) = session((tmp_path / "identity.onnx").read_bytes()).run(None, {"images": images})
    assert np.array_equal(same, images)


def test_modes_statistics_and_generators_stay_as_they_were(network, batch, tmp_path):
    network = copy.deepcopy(network).train()
    network.get_submodule("stages").eval()
    modes = [module.training for module in network.modules()]
    before = {name: value.clone() for name, value in network.state_dict().items()}
    generator, filters = torch.get_rng_state(), list(warnings.filters)
    export_checked(network, (1, 28, 28), [batch], tmp_path / "model.onnx")
    assert [module.training for module in network.modules()] == modes
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert torch.equal(torch.get_rng_state(), generator)
    assert warnings.filters == filters
    assert torch.is_grad_enabled()


def test_a_file_that_computes_something_else_is_refused_and_removed(
    network, other_network, batch, tmp_path, monkeypatch
):
    monkeypatch.setattr(export.formats.onnx, "to_onnx", lambda _, shape, path: to_onnx(other_network, shape, path))
    path = tmp_path / "model.onnx"
    path.write_bytes(b"an older file")
    with pytest.raises(ExportError, match=r"model\.onnx: ONNX differs .* \(allowed: 0\.0001\) .* no file was written"):
        export_checked(network, (1, 28, 28), [batch], path)
    assert not list(tmp_path.iterdir())


def test_another_top1_is_refused_even_within_the_tolerance(tmp_path, monkeypatch):
    tie, flipped = nn.Flatten(), nn.Sequential(nn.Flatten(), nn.Linear(2, 2))
    with torch.no_grad():
        flipped[1].weight.copy_(torch.tensor([[0.0, 1.0], [1.0, 0.0]]))
        flipped[1].bias.zero_()
    monkeypatch.setattr(export.formats.onnx, "to_onnx", lambda _, shape, path: to_onnx(flipped, shape, path))
    images = torch.tensor([[1.0, 1.001], [1.0, 1.0]]).reshape(2, 1, 1, 2)
    with pytest.raises(ExportError, match=r"agrees on 50\.00% .* all of 2"):
        export_checked(tie, (1, 1, 2), [images], tmp_path / "model.onnx", tolerance=0.1)
    assert not list(tmp_path.iterdir())


def test_not_a_number_is_refused(tmp_path):
    class Root(nn.Module):
        def forward(self, x):
            return x.flatten(1).sqrt()

    with pytest.raises(ExportError, match="by up to nan"):
        export_checked(Root(), (1, 2, 2), [torch.full((1, 1, 2, 2), -1.0)], tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())


def test_no_images_no_file(network, tmp_path):
    with pytest.raises(ExportError, match="no images to compare"):
        export_checked(network, (1, 28, 28), [], tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())


def test_an_operation_without_onnx_is_an_export_error(tmp_path):
    class Unknown(nn.Module):
        def forward(self, x):
            return torch.special.bessel_j0(x)

    with pytest.raises(ExportError, match=r"Unknown with input .* cannot become ONNX"):
        to_onnx(Unknown(), (1, 2, 2), tmp_path / "model.onnx")


def test_a_file_with_another_output_shape_is_refused(network, batch, tmp_path):
    to_onnx(nn.Flatten(), (1, 28, 28), tmp_path / "model.onnx")
    with pytest.raises(ExportError, match=r"gives shape \(6, 784\), PyTorch \(6, 10\)"):
        parity(session(tmp_path / "model.onnx"), network, [batch])
