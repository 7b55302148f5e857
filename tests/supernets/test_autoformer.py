import pytest
import torch

import ofa
from ofa.core.errors import FamilyError, SpaceError
from ofa.cost.block_table import distinct_blocks
from ofa.cost.counted import macs_m, params_m
from supernets import autoformer

# Published (arXiv 2107.00651, tables 1 and 3; released networks: microsoft/Cream, AutoFormer/experiments/subnet).
RELEASED = {
    "tiny": (192, [3] * 10 + [4, 3, 3], [3.5, 3.5, 3, 3.5, 3, 3, 4, 4, 3.5, 4, 3.5, 4, 3.5]),
    "small": (384, [6, 6, 5, 7, 5, 5, 5, 6, 6, 7, 7, 6, 7], [3, 3.5, 3, 3.5, 4, 4, 4, 4, 4, 4, 4, 3.5, 4]),
    "base": (
        576,
        [9, 9, 9, 9, 9, 10, 9, 9, 10, 9, 10, 9, 9, 10],
        [3.5, 3.5, 4, 3.5, 4, 3.5, 3.5, 3, 4, 4, 3, 4, 3, 3.5],
    ),
}
MADE = {"tiny": autoformer.tiny, "small": autoformer.small, "base": autoformer.base}


def archs_of(n_widths, per_block, depths):
    return n_widths * sum(per_block**depth for depth in depths)


@pytest.mark.parametrize(
    ("size", "n_archs"),
    [
        ("tiny", archs_of(3, 2 * 2, (12, 13, 14))),
        ("small", archs_of(3, 3 * 3, (12, 13, 14))),
        ("base", archs_of(3, 3 * 3, (14, 15, 16))),
    ],
)
def test_the_space_is_the_papers(size, n_archs):
    family = MADE[size]()
    assert family.name == f"autoformer_{size}"
    assert family.resolutions == (224,)
    assert family.space.size == n_archs
    largest = family.space.largest
    assert len(largest) == 3 + 2 * largest["depth"]


@pytest.mark.parametrize(("size", "params", "macs"), [("tiny", 5.7, 1.3), ("small", 22.9, 5.1), ("base", 53.7, 11)])
def test_released_networks_have_their_published_cost(size, params, macs):
    """Within 3% in parameters (the README has 5.8M for tiny) and 6% in multiply-accumulates."""
    width, heads, ratios = RELEASED[size]
    family = MADE[size](mlp_ratios=(3, 3.5, 4))
    arch = {"resolution": 224, "embed_dim": width, "depth": len(heads)}
    for b, (n_heads, ratio) in enumerate(zip(heads, ratios, strict=True)):
        arch |= {f"block{b}.heads": n_heads, f"block{b}.mlp_ratio": ratio}
    row = family.space.rows([arch])
    assert params_m(family)(row)[0] == pytest.approx(params, rel=0.03)
    assert macs_m(family)(row)[0] / 1e3 == pytest.approx(macs, rel=0.06)


@pytest.mark.parametrize(
    ("size", "params"), [("tiny", (5.37, 10.52)), ("small", (13.06, 34.79)), ("base", (39.79, 76.88))]
)
def test_the_smallest_and_largest_network_have_the_official_number_of_parameters(size, params):
    space = MADE[size]().space
    ends = params_m(MADE[size]())(space.rows([space.smallest, space.largest]))
    assert ends == pytest.approx(params, abs=0.005)


def test_blocks_of_all_positions_share_rows_of_a_latency_table():
    assert len(list(distinct_blocks(autoformer.tiny()))) == 3 * 2 * 2 + 2 * 3


@pytest.mark.parametrize("resolution", [16, 48, 240])
def test_networks_take_other_resolutions_and_single_images(resolution):
    options = {"embed_dims": (64, 96), "depths": (1, 2), "heads": (1, 2), "num_classes": 7, "in_channels": 1}
    supernet = ofa.Supernet(autoformer.tiny(resolutions=(resolution,), **options)).eval()
    for arch in (supernet.family.space.largest, supernet.family.space.smallest):
        images = torch.randn(3, 1, resolution, resolution)
        with torch.no_grad():
            logits, alone = supernet.subnet(arch)(images), supernet.extract(arch)(images[:1])
        assert logits.shape == (3, 7)
        torch.testing.assert_close(alone, logits[:1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"heads": (0, 3)}, "autoformer_tiny: 0 in heads is not allowed"),
        ({"depths": (12.5, 13)}, "12.5 in depths"),
        ({"embed_dims": (192.0, 216)}, "192.0 in embed_dims"),
        ({"mlp_ratios": (3.3, 4)}, "3.3 in mlp_ratios gives 633.6 hidden channels for embed_dim 192; choose"),
        ({"mlp_ratios": (-1, 4)}, "-1 in mlp_ratios is not allowed"),
        ({"mlp_ratios": ("4",)}, "'4' in mlp_ratios is not allowed"),
        ({"resolutions": (200, 224)}, "resolution 200 is not allowed; give multiples of 16"),
    ],
)
def test_values_that_no_network_can_have_are_refused(options, message):
    with pytest.raises(FamilyError, match=message):
        autoformer.tiny(**options)


@pytest.mark.parametrize("options", [{"embed_dims": (240, 192)}, {"depths": ()}, {"heads": (4, 3)}])
def test_values_out_of_order_are_refused(options):
    with pytest.raises(
        SpaceError, match=r"choice .* has values \(.*\); give finite numbers in ascending order, each once"
    ):
        autoformer.tiny(**options)


def test_products_are_whole_numbers_despite_rounding():
    family = autoformer.tiny(embed_dims=(300, 330), mlp_ratios=(3.3,), heads=(3,))
    row = family.space.row(family.space.largest)
    assert {block.hidden for slot, block in family.blocks(row) if "." in slot.path} == {1089}
