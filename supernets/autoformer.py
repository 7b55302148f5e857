"""The three search spaces of AutoFormer: elastic width, depth, heads and MLP ratios (arXiv 2107.00651, table 1).

All blocks have one width, `embed_dim`; each has its own number of heads and its own MLP ratio. The official supernets
of 256, 448 and 640 channels are in part wider than their spaces: importing a checkpoint takes leading slices.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

from ofa import Choice, Family, SearchSpace, Slot
from ofa.core.errors import FamilyError
from supernets.blocks.stages import stage_blocks
from supernets.blocks.tokens import PatchEmbed, TokenHead, TransformerBlock

_PATCH = 16


def tiny(
    num_classes: int = 1000,
    in_channels: int = 3,
    resolutions: Sequence[int] = (224,),
    embed_dims: Sequence[int] = (192, 216, 240),
    depths: Sequence[int] = (12, 13, 14),
    heads: Sequence[int] = (3, 4),
    mlp_ratios: Sequence[float] = (3.5, 4),
) -> Family:
    """Return AutoFormer-T's family: 10^9 archs of 5.4M to 10.5M parameters.

    The released subnet (5.9M) has MLP ratios of 3, outside of the published space: it needs `mlp_ratios=(3, 3.5, 4)`.

    Args:
        num_classes: length of the logits.
        in_channels: channels of the images.
        resolutions: height and width of the images in pixels, ascending multiples of 16.
        embed_dims: allowed widths of all blocks.
        depths: allowed numbers of blocks; a smaller network keeps the first ones.
        heads: allowed numbers of heads per block, of 64 channels each.
        mlp_ratios: allowed ratios of an MLP's hidden channels to `embed_dim`; each product must be a whole number.

    Raises:
        FamilyError: no network can have one of the values.
        SpaceError: the values of an option are not ascending.
    """
    spaces = (embed_dims, depths, heads, mlp_ratios)
    return _family("autoformer_tiny", num_classes, in_channels, resolutions, *spaces)


def small(
    num_classes: int = 1000,
    in_channels: int = 3,
    resolutions: Sequence[int] = (224,),
    embed_dims: Sequence[int] = (320, 384, 448),
    depths: Sequence[int] = (12, 13, 14),
    heads: Sequence[int] = (5, 6, 7),
    mlp_ratios: Sequence[float] = (3, 3.5, 4),
) -> Family:
    """Return AutoFormer-S's family: 8x10^13 archs of 13.1M to 34.8M parameters; 22.9M released. See `tiny`."""
    spaces = (embed_dims, depths, heads, mlp_ratios)
    return _family("autoformer_small", num_classes, in_channels, resolutions, *spaces)


def base(
    num_classes: int = 1000,
    in_channels: int = 3,
    resolutions: Sequence[int] = (224,),
    embed_dims: Sequence[int] = (528, 576, 624),
    depths: Sequence[int] = (14, 15, 16),
    heads: Sequence[int] = (8, 9, 10),
    mlp_ratios: Sequence[float] = (3, 3.5, 4),
) -> Family:
    """Return AutoFormer-B's family: 6x10^15 archs of 39.8M to 76.9M parameters; 53.7M released. See `tiny`."""
    spaces = (embed_dims, depths, heads, mlp_ratios)
    return _family("autoformer_base", num_classes, in_channels, resolutions, *spaces)


def _family(
    name: str,
    num_classes: int,
    in_channels: int,
    resolutions: Sequence[int],
    embed_dims: Sequence[int],
    depths: Sequence[int],
    heads: Sequence[int],
    mlp_ratios: Sequence[float],
) -> Family:
    for option, counts in {"embed_dims": embed_dims, "depths": depths, "heads": heads}.items():
        _check_counts(name, option, counts)
    _check_ratios(name, mlp_ratios, embed_dims)
    embed_dim, depth = Choice("embed_dim", tuple(embed_dims)), Choice("depth", tuple(depths))
    own = {"heads": heads, "mlp_ratio": mlp_ratios}
    block_choices, blocks = stage_blocks(depth, [_block] * max(depths), shared=(embed_dim,), own=own, reduction=_PATCH)
    return Family(
        name=name,
        space=SearchSpace([Choice("resolution", tuple(resolutions)), embed_dim, depth, *block_choices]),
        slots=(
            Slot("patch_embed", partial(PatchEmbed, in_channels, patch=_PATCH), (embed_dim.name,)),
            *blocks,
            Slot("head", partial(TokenHead, num_classes=num_classes), (embed_dim.name,), _PATCH),
        ),
        in_channels=in_channels,
        resolution_multiple=_PATCH,
        classifiers=("head.classifier",),
    )


def _block(embed_dim: int, heads: int, mlp_ratio: float) -> TransformerBlock:
    return TransformerBlock(embed_dim, heads, round(mlp_ratio * embed_dim))


def _check_counts(name: str, option: str, values: Sequence[int]) -> None:
    for value in values:
        if type(value) is not int or value < 1:
            raise FamilyError(f"{name}: {value!r} in {option} is not allowed; give whole numbers above 0")


def _check_ratios(name: str, mlp_ratios: Sequence[float], embed_dims: Sequence[int]) -> None:
    for ratio in mlp_ratios:
        if type(ratio) not in (int, float) or not 0 < ratio < math.inf:
            raise FamilyError(f"{name}: {ratio!r} in mlp_ratios is not allowed; give numbers above 0")
        for embed_dim in embed_dims:
            hidden = ratio * embed_dim
            if not math.isclose(hidden, round(hidden)):
                raise FamilyError(
                    f"{name}: {ratio!r} in mlp_ratios gives {hidden:g} hidden channels for embed_dim {embed_dim}; "
                    "choose ratios and widths whose products are whole numbers"
                )
