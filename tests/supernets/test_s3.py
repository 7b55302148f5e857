import numpy as np
import pytest
import torch
from timm.models.swin_transformer import SwinTransformer

import ofa
from ofa.core.errors import SpaceError
from ofa.cost.counted import macs_m, params_m
from supernets import s3

DEPTHS = {"tiny": (2, 2, 6, 2), "small": (2, 2, 18, 2), "base": (2, 2, 30, 2)}
WINDOWS = {"tiny": (7, 7, 14, 7), "small": (14, 14, 14, 14), "base": (7, 7, 14, 7)}
PARAMS = {"tiny": 28, "small": 50, "base": 71}  # millions, as published with the released networks
FAMILIES = {"tiny": s3.tiny, "small": s3.small, "base": s3.base}


def released(depths, windows, resolution=224):
    """Return the arch of a released configuration."""
    arch = {"resolution": resolution}
    for s, (depth, window) in enumerate(zip(depths, windows, strict=True)):
        arch |= {f"stage{s}.depth": depth, f"stage{s}.embed_dim": 96 * 2**s}
        for b in range(depth):
            values = {"window": window, "heads": 3 * 2**s, "mlp_ratio": 4, "qkv_dim": 96 * 2**s}
            arch |= {f"stage{s}.block{b}.{name}": value for name, value in values.items()}
    return arch


@pytest.mark.parametrize("size", FAMILIES)
def test_released_networks_are_members_of_the_published_size(size):
    family = FAMILIES[size]()
    arch = family.space.arch(released(DEPTHS[size], WINDOWS[size]))
    with torch.device("meta"):
        n_params = sum(p.numel() for p in family.build(arch).parameters())
    assert n_params / 1e6 == pytest.approx(PARAMS[size], abs=0.5)
    assert params_m(family)(family.space.rows([arch]))[0] == pytest.approx(n_params / 1e6)


def of_swin(state, swin):
    """Return a Swin's weights under our names and in our order of rows and columns."""
    renamed = {}
    for name, tensor in swin.items():
        for old, new in (
            ("patch_embed.proj", "patch_embed.conv"),
            ("layers.", "stages."),
            (".blocks", ""),
            (".downsample", ".merging"),
            (".attn.relative_position_bias_table", ".attention.bias_table"),
            (".attn.", ".attention."),
            ("head.fc", "head.classifier"),
        ):
            name = name.replace(old, new)
        name = f"head.{name}" if name.startswith("norm.") else name
        if ".qkv." in name:  # from all of q, then k, then v to adjacent rows
            tensor = tensor.unflatten(0, (3, -1)).swapaxes(0, 1).flatten(0, 1)
        elif ".merging." in name:  # tokens are by column, channels adjacent in Swin
            tensor = tensor.unflatten(-1, (2, 2, -1)).transpose(-1, -3).flatten(-3)
        if name.endswith("bias_table"):
            tensor = tensor.reshape(*2 * [round(len(tensor) ** 0.5)], -1)
        renamed[name] = tensor
    assert renamed.keys() == state.keys()
    return renamed


@pytest.mark.parametrize("window", [7, 14])
def test_swin_is_a_member_and_computes_what_timms_swin_does(window):
    """The last stage's map is smaller than a window of 14, where timm has the smaller table."""
    depths = (2, 2, 4, 2)
    family = s3.tiny(num_classes=10)
    network = family.build(released(depths, (window,) * 4)).eval()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        swin = SwinTransformer(num_classes=10, depths=depths, window_size=window).eval()
        with torch.no_grad():
            for parameter in swin.parameters():
                parameter.add_(0.02 * torch.randn_like(parameter))
        images = torch.randn(1, 3, 224, 224)
    weights = of_swin(network.state_dict(), swin.state_dict())
    for name, tensor in weights.items():
        if name.startswith("stages.3") and name.endswith("bias_table"):
            edge = window - 7
            weights[name] = torch.nn.functional.pad(tensor, (0, 0, edge, edge, edge, edge), value=1e3)
    network.load_state_dict(weights)
    with torch.no_grad():
        logits, expected = network(images), swin(images)
    assert expected.std() > 0.1
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)


def test_macs_of_the_released_tiny_network():
    """The sum over layers at 224 pixels."""
    family = s3.tiny()
    side, expected, before = 56, 56 * 56 * 48 * 96, 0
    for s, (depth, window) in enumerate(zip(DEPTHS["tiny"], WINDOWS["tiny"], strict=True)):
        width = 96 * 2**s
        tokens = side * side
        expected += tokens * 4 * before * width
        expected += depth * (tokens * width * width * (4 + 8) + 2 * tokens * window**2 * width)
        side, before = side // 2, width
    expected += 768 * 1000
    rows = family.space.rows([released(DEPTHS["tiny"], WINDOWS["tiny"])])
    assert macs_m(family)(rows)[0] == pytest.approx(expected / 1e6)


def test_every_combination_of_values_can_be_built():
    family = s3.tiny()
    for slot, columns in zip(family.slots, family.columns, strict=True):
        for indices in np.ndindex(*(len(family.space.choices[column].values) for column in columns)):
            family.slot_block(family.slots.index(slot), indices)  # raises if heads do not divide qkv_dim


def test_the_space_has_the_documented_size():
    space = s3.tiny(resolutions=(224,)).space
    per_block = 2 * 3 * 3 * 3
    per_stage = 3 * (per_block + per_block**2 + per_block**3)
    third = 3 * (per_block**4 + sum(per_block**6 * per_block**more for more in (0, 2)))
    assert space.size == per_stage**3 * third
    with pytest.raises(SpaceError, match=r"stage2.block0.heads = 7 is not allowed; choose from \(8, 12, 16\)"):
        space.arch(dict(space.largest) | {"stage2.block0.heads": 7})


def test_windows_of_both_sizes_share_the_center_of_the_table():
    family = s3.tiny(num_classes=10, resolutions=(32, 64))
    supernet = ofa.Supernet(family)
    subnet = supernet.subnet(family.space.smallest)
    table = subnet.get_submodule("stages.0.0.attention").bias_table
    full = supernet.network.get_parameter("stages.0.0.attention.bias_table")
    assert torch.equal(table, full[7:20, 7:20, :2])
    supernet.zero_grad()
    subnet(torch.randn(2, 3, 32, 32)).square().sum().backward()
    inside = torch.zeros(27, 27, 4, dtype=torch.bool)
    inside[7:20, 7:20, :2] = True
    assert full.grad[inside].abs().max() > 0
    assert full.grad[~inside].abs().max() == 0


def test_blocks_of_a_stage_differ_only_in_the_shift():
    family = s3.tiny()
    largest = family.space.row(family.space.largest)
    blocks = {repr(block) for slot, block in family.blocks(largest) if slot.path.startswith("stages.2.")}
    assert len(blocks) == 1 + 2  # patch merging, and blocks with and without shift
