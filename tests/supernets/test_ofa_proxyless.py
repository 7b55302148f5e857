import pytest
import torch
from torch import nn

from ofa.cost.counted import macs_m, params_m
from supernets.ofa_proxyless import family as make_family


@pytest.fixture(scope="module")
def family():
    return make_family()


def test_the_space_is_that_of_once_for_all(family):
    per_stage = (3 * 3) ** 2 + (3 * 3) ** 3 + (3 * 3) ** 4
    assert len(family.resolutions) == 25
    assert family.space.size == 25 * per_stage**5 * (3 * 3)  # the last stage has one block


def test_the_largest_network_has_the_official_cost(family):
    """7.942056M parameters and 1004.907968M MACs at 224 pixels, summed in float32 by the official code."""
    rows = family.space.rows([family.space.smallest, family.space.largest])
    assert macs_m(family)(rows)[1] == pytest.approx(1004.907968, rel=1e-6)
    assert params_m(family)(rows)[1] == pytest.approx(7.942056, rel=1e-9)
    assert 80 < macs_m(family)(rows)[0] < 100


def test_stages_have_the_published_shapes(family):
    seen = []
    for arch in (family.space.smallest, family.space.largest):
        with torch.device("meta"):
            network = family.build(arch).eval()
        x = network.first(network.stem(torch.zeros(1, 3, 224, 224, device="meta")))
        for stage in network.stages:
            x = stage(x)
            seen.append((len(stage), *x.shape[1:]))
    shapes = [(32, 56, 56), (56, 28, 28), (104, 14, 14), (128, 14, 14), (248, 7, 7), (416, 7, 7)]
    assert seen == [
        (n, *shape) for depths in ((2,) * 5 + (1,), (4,) * 5 + (1,)) for n, shape in zip(depths, shapes, strict=True)
    ]


def test_layers_are_mobilenet_v2s(family):
    with torch.device("meta"):
        network = family.build(family.space.largest)
    assert {norm.eps for norm in network.modules() if isinstance(norm, nn.BatchNorm2d)} == {1e-3}
    kinds = {type(module).__name__ for module in network.modules()}
    assert "ReLU6" in kinds
    assert not kinds & {"ReLU", "Hardswish", "SEModule"}
    assert network.first.depthwise.conv.in_channels == 40
    assert not network.first.residual
    assert [b.residual for b in network.stages[3]] == [False, True, True, True]
    assert network.head.classifier.in_features == 1664


def test_kernel_transforms_are_an_option():
    assert list(make_family().rules) == ["stages.*.depthwise.conv.weight"]
    assert not make_family(kernel_transforms=False).rules


def test_other_widths_build():
    family = make_family(num_classes=10, resolutions=[32, 64], width_mult=0.5)
    assert family.build(family.space.smallest).eval()(torch.zeros(2, 3, 32, 32)).shape == (2, 10)
