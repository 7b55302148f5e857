import pytest
import torch
from torch import nn

from ofa.cost.counted import macs_m, params_m
from supernets.ofa_resnet50 import family as make_family


@pytest.fixture(scope="module")
def family():
    return make_family()


def test_the_space_is_that_of_once_for_all(family):
    """The stem's first layers have two distinct widths instead of three."""
    two, four = (3 * sum(3 ** (base + more) for more in (0, 1, 2)) for base in (2, 4))
    assert family.space.size == 8 * (2 * 2 * 3) * two**3 * four


def test_the_largest_network_has_the_official_cost(family):
    """48.105992M parameters and 7491.642368M MACs at 224 pixels, summed in float32 by the official code."""
    space = family.space
    rows = space.rows([space.smallest, space.arch(dict(space.largest) | {"resolution": 224})])
    assert macs_m(family)(rows)[1] == pytest.approx(7491.642368, rel=1e-6)
    assert params_m(family)(rows)[1] == pytest.approx(48.105992, rel=1e-9)
    assert macs_m(family)(rows)[0] < 600 < 4100 < macs_m(family)(rows)[1]  # published subnets: 0.6B to 4.1B


@pytest.mark.parametrize(
    ("width", "channels", "hidden"),
    [
        (0.65, [168, 336, 664, 1328], [56, 120, 232, 464]),
        (0.8, [208, 408, 816, 1640], [72, 144, 288, 576]),
        (1.0, [256, 512, 1024, 2048], [88, 176, 360, 720]),
    ],
)
def test_stages_have_the_published_shapes(family, width, channels, hidden):
    arch = dict(family.space.largest) | {f"stage{s}.width": width for s in range(4)} | {"resolution": 224}
    with torch.device("meta"):
        network = family.build(arch).eval()
    x = network.stem(torch.zeros(1, 3, 224, 224, device="meta"))
    assert x.shape[1:] == (64, 56, 56)
    for stage, out, mid, n, size in zip(network.stages, channels, hidden, (4, 4, 6, 4), (56, 28, 14, 7), strict=True):
        x = stage(x)
        assert (len(stage), *x.shape[1:]) == (n, out, size, size)
        assert stage[0].conv2.conv.out_channels == mid
        assert [isinstance(block.shortcut, nn.Identity) for block in stage] == [False] + (n - 1) * [True]


@pytest.mark.parametrize(("mid", "channels"), [(0.65, 24), (1.0, 32)])
@pytest.mark.parametrize(("width", "out"), [(0.65, 40), (0.8, 48), (1.0, 64)])
@pytest.mark.parametrize(("depth", "convolutions"), [(0, 2), (2, 3)])
def test_the_stem_follows_its_three_choices(family, mid, channels, width, out, depth, convolutions):
    arch = dict(family.space.smallest) | {"stem.mid_width": mid, "stem.width": width, "stem.depth": depth}
    stem = family.build(arch).stem
    assert [m.out_channels for m in stem.modules() if isinstance(m, nn.Conv2d)] == (convolutions - 1) * [channels] + [
        out
    ]
    assert stem.eval()(torch.zeros(1, 3, 64, 64)).shape == (1, out, 16, 16)


def test_depth_counts_blocks(family):
    for depths in ((2, 2, 4, 2), (3, 4, 5, 3), (4, 4, 6, 4)):
        arch = dict(family.space.largest) | {f"stage{s}.depth": depth for s, depth in enumerate(depths)}
        with torch.device("meta"):
            assert tuple(len(stage) for stage in family.build(arch).stages) == depths
