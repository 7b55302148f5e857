"""The three search spaces of AutoFormer: elastic width, depth, heads and MLP ratios (arXiv 2107.00651, table 1).

All blocks have one width, `embed_dim`; each has its own number of heads and its own MLP ratio. The official supernets
of 256, 448 and 640 channels are in part wider than their spaces: importing a checkpoint takes leading slices.
"""

import math
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import product

from ofa import Family
from ofa.core.errors import FamilyError
from supernets.blocks.tokens import PatchEmbed, TokenHead, TransformerBlock
from supernets.layout import Layout

_PATCH = 16


def _family(
    name: str,
    num_classes: int = 1000,
    in_channels: int = 3,
    resolutions: Sequence[int] = (224,),
    *,
    embed_dims: Sequence[int],
    depths: Sequence[int],
    heads: Sequence[int],
    mlp_ratios: Sequence[float] = (3, 3.5, 4),
) -> Family:
    """Return a family of allowed widths, numbers of blocks, and numbers of heads and MLP ratios per block.

    A smaller network keeps the first blocks; heads have 64 channels each. Resolutions are multiples of 16 pixels, and
    each product of an MLP ratio and a width, the hidden channels of an MLP, must be a whole number.

    Raises:
        FamilyError: no network can have one of the values.
        SpaceError: the values of an option are not ascending.
    """
    _check(name, {"embed_dims": embed_dims, "depths": depths, "heads": heads}, mlp_ratios)
    layout = Layout(resolutions)
    embed_dim, depth = layout.choice("embed_dim", embed_dims), layout.choice("depth", depths)
    layout.block("patch_embed", partial(PatchEmbed, in_channels, patch=_PATCH), embed_dim, stride=_PATCH)
    own = {"heads": heads, "mlp_ratio": mlp_ratios}
    layout.stage(None, depth, [_block] * max(depths), shared=(embed_dim,), own=own)
    layout.block("head", partial(TokenHead, num_classes=num_classes), embed_dim)
    return layout.family(name, in_channels, resolution_multiple=_PATCH)


tiny = partial(
    _family,
    "autoformer_tiny",
    embed_dims=(192, 216, 240),
    depths=(12, 13, 14),
    heads=(3, 4),
    mlp_ratios=(3.5, 4),
)
"""AutoFormer-T's family: 10^9 archs of 5.4M to 10.5M parameters.

The released subnet (5.9M) has MLP ratios of 3, outside of the published space: it needs `mlp_ratios=(3, 3.5, 4)`.
"""
small = partial(_family, "autoformer_small", embed_dims=(320, 384, 448), depths=(12, 13, 14), heads=(5, 6, 7))
"""AutoFormer-S's family: 8x10^13 archs of 13.1M to 34.8M parameters; 22.9M released."""
base = partial(_family, "autoformer_base", embed_dims=(528, 576, 624), depths=(14, 15, 16), heads=(8, 9, 10))
"""AutoFormer-B's family: 6x10^15 archs of 39.8M to 76.9M parameters; 53.7M released."""


def _block(embed_dim: int, heads: int, mlp_ratio: float) -> TransformerBlock:
    return TransformerBlock(embed_dim, heads, round(mlp_ratio * embed_dim))


def _check(name: str, counts: Mapping[str, Sequence[int]], mlp_ratios: Sequence[float]) -> None:
    for option, values in {**counts, "mlp_ratios": mlp_ratios}.items():
        kinds = (int,) if option in counts else (int, float)
        for value in values:
            if type(value) not in kinds or not 0 < value < math.inf:
                numbers = "whole numbers" if option in counts else "numbers"
                raise FamilyError(f"{name}: {value!r} in {option} is not allowed; give {numbers} above 0")
    for ratio, embed_dim in product(mlp_ratios, counts["embed_dims"]):
        hidden = ratio * embed_dim
        if not math.isclose(hidden, round(hidden)):
            raise FamilyError(
                f"{name}: {ratio!r} in mlp_ratios gives {hidden:g} hidden channels for embed_dim {embed_dim}; choose "
                "ratios and widths whose products are whole numbers"
            )
