import numpy as np
import pytest
import torch

import ofa
from ofa.cost.counted import macs_m
from supernets.attentive_mobilenet import family as make_family

# Models that AttentiveNAS publishes: resolution; widths from the stem's to the head's; kernels, expansions and depths,
# one digit per stage; millions of multiply-accumulates (arXiv 2011.09011 and its repository).
PUBLISHED = {
    "A0": (192, (16, 16, 24, 32, 64, 112, 192, 216, 1792), "3333333", "1444466", "1333331", 203),
    "A1": (224, (16, 16, 24, 32, 64, 112, 192, 216, 1984), "3335353", "1444466", "1333331", 279),
    "A2": (224, (16, 16, 24, 32, 64, 112, 200, 224, 1984), "3333353", "1454466", "1333341", 317),
    "A3": (224, (16, 16, 24, 32, 64, 112, 208, 224, 1984), "3335333", "1444466", "2334351", 357),
    "A4": (256, (16, 16, 24, 32, 64, 112, 192, 216, 1984), "3335353", "1445466", "1334351", 444),
    "A5": (256, (16, 16, 24, 32, 72, 112, 192, 216, 1792), "3335333", "1454466", "1333461", 491),
    "A6": (288, (16, 16, 24, 32, 64, 112, 216, 224, 1984), "3333353", "1465466", "1334461", 709),
}


@pytest.fixture(scope="module")
def family():
    return make_family()


def published(family, model):
    resolution, (stem, *widths, head), kernels, expands, depths, _ = PUBLISHED[model]
    values = {"resolution": resolution, "stem.width": stem, "head.width": head}
    for s, stage in enumerate(zip(widths, depths, kernels, expands, strict=True)):
        kinds = zip(("width", "depth", "kernel", "expand"), stage, strict=True)
        values |= {f"stage{s}.{kind}": int(value) for kind, value in kinds}
    return family.space.arch(values)


def test_the_space_is_the_published_one(family):
    widths, depths = 2 * 2 * 2 * 2 * 3 * 4 * 2, 2 * 3 * 4 * 4 * 6 * 6 * 2
    assert family.space.size == 4 * (2 * 2) * widths * depths * 2**7 * 3**4


def test_published_models_have_their_published_cost(family):
    rows = family.space.rows([published(family, model) for model in PUBLISHED])
    assert macs_m(family)(rows).round().tolist() == [model[-1] for model in PUBLISHED.values()]


def test_the_smallest_is_a0(family):
    assert family.space.smallest == published(family, "A0")


def test_stages_of_the_largest(family):
    with torch.device("meta"):
        network = family.build(family.space.largest).eval()
    x, seen = network.stem(torch.zeros(1, 3, 224, 224, device="meta")), []
    for stage in network.stages:
        x = stage(x)
        seen.append((len(stage), *x.shape[1:3]))
    assert seen == [(2, 24, 112), (5, 32, 56), (6, 40, 28), (6, 72, 14), (8, 128, 14), (8, 216, 7), (2, 224, 7)]
    assert [hasattr(stage[0].se, "fc1") for stage in network.stages] == [False, False, True, False, True, True, True]
    assert (network.head.conv.conv.out_channels, network.head.hidden.out_channels) == (6 * 224, 1984)


def test_every_pair_of_neighboring_widths_shares_weights():
    """The largest network's shortcut is the identity where smaller ones need a convolution."""
    supernet = ofa.Supernet(make_family(num_classes=10, resolutions=[32])).eval()
    space = supernet.family.space
    for stem in (16, 24):
        for width in (16, 24):
            arch = space.arch(dict(space.smallest) | {"stem.width": stem, "stage0.width": width})
            block, x = supernet.subnet(arch).get_submodule("stages.0.0"), torch.randn(2, stem, 8, 8)
            shortcut = x
            if stem != width:
                weight = supernet.network.get_parameter("stages.0.0.shortcut.conv.weight")[:width, :stem]
                shortcut = torch.nn.functional.conv2d(x, weight)
            with torch.no_grad():
                torch.testing.assert_close(block(x), shortcut + block.project(block.depthwise(x)))


def slot_blocks(family, path):
    slot = next(slot for slot in family.slots if slot.path == path)
    return slot.choices, slot.block


def test_blocks_of_a_stage_share_width_kernel_and_expansion(family):
    choices, first_block = slot_blocks(family, "stages.2.0")
    assert choices == ("stage1.width", "stage2.width", "stage2.kernel", "stage2.expand")
    first = first_block(24, 40, 5, 6)
    assert (first.in_channels, first.out_channels, first.stride, first.kernel, first.expand) == (24, 40, 2, 5, 6)
    choices, later_block = slot_blocks(family, "stages.2.4")
    assert choices == ("stage2.depth", "stage2.width", "stage2.kernel", "stage2.expand")
    later = later_block(5, 40, 5, 6)
    assert (later.in_channels, later.out_channels, later.stride, later.kernel, later.expand) == (40, 40, 1, 5, 6)
    assert all(block.residual and block.se and block.act == "swish" for block in (first, later))
    assert later_block(4, 40, 5, 6) is None


def test_the_largest_holds_the_shortcut_that_only_smaller_networks_use(family):
    _, block = slot_blocks(family, "stages.0.0")
    spare = {(i, o): block(i, o, 3, 1).spare_shortcut for i in (16, 24) for o in (16, 24)}
    assert spare == {(16, 16): False, (16, 24): False, (24, 16): False, (24, 24): True}
    for path, widths in (("stages.1.0", (24, 32)), ("stages.6.0", (216, 224))):
        _, block = slot_blocks(family, path)
        assert not block(*widths, 3, 6).spare_shortcut


def test_random_archs_build(family):
    rows = family.space.sample(5, np.random.default_rng(0))
    for row in rows:
        with torch.device("meta"):
            network = family.build(family.space.decode(row)).eval()
        assert network(torch.zeros(1, 3, 64, 64, device="meta")).shape == (1, 1000)
