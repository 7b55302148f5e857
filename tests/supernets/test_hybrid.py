import re

import numpy as np
import pytest
import torch

import ofa
from export.formats.onnx import export_onnx
from ofa.core.errors import FamilyError, SpaceError
from ofa.cost.block_table import distinct_blocks
from ofa.cost.counted import macs_m, params_m
from ofa.pipeline.recipe_file import load_recipe
from supernets import hybrid

FAMILIES = [hybrid.hybrid, hybrid.hybrid_small]
SEVEN = ("resolution", "depth", "width", "kernel", "embed_dim", "heads", "mlp_ratio")


def at(space, resolution):
    """Return the rows of the smallest and largest network at one resolution."""
    return space.rows([dict(arch) | {"resolution": resolution} for arch in (space.smallest, space.largest)])


@pytest.mark.parametrize("make", FAMILIES)
def test_all_seven_dimensions_are_elastic(make):
    elastic = {choice.name.split(".")[-1] for choice in make().space.choices if len(choice.values) > 1}
    assert elastic >= set(SEVEN)


def test_the_hybrid_spans_mobile_to_server():
    family = hybrid.hybrid()
    rows = at(family.space, 224)
    smallest, largest = macs_m(family)(rows)
    assert smallest <= 50
    assert largest >= 1500
    assert np.all(params_m(family)(rows) == pytest.approx([0.43, 12.5], abs=0.05))


@pytest.mark.parametrize(("make", "most"), [(hybrid.hybrid, 3000), (hybrid.hybrid_small, 600)])
def test_a_latency_table_stays_small(make, most):
    assert len(list(distinct_blocks(make()))) <= most


def test_the_small_space_is_large():
    family = hybrid.hybrid_small(resolutions=(28,), in_channels=1)
    assert family.space.size >= 10**6
    assert macs_m(family)(at(family.space, 28))[1] < 20


@pytest.mark.parametrize("make", FAMILIES)
@pytest.mark.parametrize("resolution", [28, 32, 33, 64])
def test_logits_have_the_number_of_classes_at_any_resolution(make, resolution):
    family = make(num_classes=7, in_channels=1, resolutions=(28, 32, 33, 64))
    for arch in (family.space.smallest, family.space.largest):
        network = family.build(dict(arch) | {"resolution": resolution}).eval()
        assert network(torch.zeros(2, 1, resolution, resolution)).shape == (2, 7)


def test_maps_larger_than_a_window_are_partitioned():
    family = hybrid.hybrid_small(resolutions=(28, 160))
    network = family.build(family.space.smallest).eval()
    assert network(torch.randn(1, 3, 160, 160)).isfinite().all()


@pytest.mark.parametrize("make", FAMILIES)
def test_gradients_flow_into_every_parameter(make):
    family = make(num_classes=10, resolutions=(32, 64))
    network = family.build(family.space.largest)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network(torch.randn(4, 3, 64, 64)).log_softmax(1)[:, 3].sum().backward()
    still = [name for name, p in network.named_parameters() if not p.grad.abs().max() > 0]
    assert still == []


def test_fewer_heads_are_the_first_ones():
    family = hybrid.hybrid_small(resolutions=(28,))
    supernet = ofa.Supernet(family)
    arch = dict(family.space.largest) | {"stage3.block0.heads": 2}
    part = supernet.subnet(arch).get_submodule("stages.3.0.attention")
    whole = supernet.network.get_submodule("stages.3.0.attention")
    assert part.head_dim == whole.head_dim == 32
    assert part.qkv.weight.data_ptr() == whole.qkv.weight.data_ptr()
    assert torch.equal(part.qkv.weight, whole.qkv.weight[: 3 * 64])
    assert torch.equal(part.proj.weight, whole.proj.weight[:, :64])
    assert torch.equal(part.bias_table, whole.bias_table[..., :2])


@pytest.mark.parametrize("make", FAMILIES)
def test_onnx_computes_the_same(make, awake, smooth_images, tmp_path):
    family = make(num_classes=10, resolutions=(32, 64))
    for arch in (family.space.smallest, family.space.largest):
        size = arch["resolution"]
        network = awake(family.build(arch).eval(), smooth_images(64, 3, size))
        batches = [smooth_images(n, 3, size, seed=n) for n in (1, 8)]
        export_onnx(network, family.input_shape(arch), tmp_path / "network.onnx", images=batches)


def test_the_recipe_names_this_family():
    recipe = load_recipe("hybrid_fashion_mnist")
    assert recipe.family.name == "hybrid_small"
    hybrid.hybrid_small(num_classes=10, in_channels=1, **recipe.family.options)


def test_values_outside_of_the_space_are_refused():
    space = hybrid.hybrid_small().space
    with pytest.raises(SpaceError, match=re.escape("stage2.block0.heads = 5 is not allowed; choose from (1, 2)")):
        space.arch(dict(space.largest) | {"stage2.block0.heads": 5})
    with pytest.raises(FamilyError, match="resolution 0 is not allowed"):
        hybrid.hybrid_small(resolutions=(0, 28))
