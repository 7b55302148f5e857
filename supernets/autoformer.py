"""The three search spaces of AutoFormer: elastic width, depth, heads and hidden layers (arXiv 2107.00651, table 1).

All layers have one width, `embed_dim`; each has its own number of heads and its own ratio of hidden channels to width.
The official supernets of 256, 448 and 640 channels are in part wider than their spaces. No network of the spaces uses
the rest, so the largest network here is the largest of the space, and what imports a checkpoint cuts it. Options hold
other spaces, also one that goes up to the official width.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from ofa import Choice, Family, SearchSpace, Slot
from ofa.core.errors import FamilyError
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
    """About 10^9 archs of 5.4 to 10.5M parameters.

    The released network (5.9M) has hidden ratios of 3, outside of the printed space: it wants `mlp_ratios=(3, 3.5, 4)`.

    Args:
        num_classes: of the classifier.
        in_channels: of the images.
        resolutions: in pixels, multiples of 16; the published networks are for 224.
        embed_dims: widths of all layers.
        depths: numbers of transformer blocks; the first ones are kept.
        heads: per block, each of 64 channels.
        mlp_ratios: per block, of hidden channels to `embed_dim`; each product must be a whole number.

    Raises:
        FamilyError: a value that no network can have.
        SpaceError: values that are not ascending.
    """
    return _family("autoformer_tiny", num_classes, in_channels, resolutions, embed_dims, depths, heads, mlp_ratios)


def small(
    num_classes: int = 1000,
    in_channels: int = 3,
    resolutions: Sequence[int] = (224,),
    embed_dims: Sequence[int] = (320, 384, 448),
    depths: Sequence[int] = (12, 13, 14),
    heads: Sequence[int] = (5, 6, 7),
    mlp_ratios: Sequence[float] = (3, 3.5, 4),
) -> Family:
    """About 8x10^13 archs of 13.1 to 34.8M parameters; the released one has 22.9M. Arguments: see `tiny`."""
    return _family("autoformer_small", num_classes, in_channels, resolutions, embed_dims, depths, heads, mlp_ratios)


def base(
    num_classes: int = 1000,
    in_channels: int = 3,
    resolutions: Sequence[int] = (224,),
    embed_dims: Sequence[int] = (528, 576, 624),
    depths: Sequence[int] = (14, 15, 16),
    heads: Sequence[int] = (8, 9, 10),
    mlp_ratios: Sequence[float] = (3, 3.5, 4),
) -> Family:
    """About 6x10^15 archs of 39.8 to 76.9M parameters; the released one has 53.7M. Arguments: see `tiny`."""
    return _family("autoformer_base", num_classes, in_channels, resolutions, embed_dims, depths, heads, mlp_ratios)


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
    embed_dim, depth = Choice("embed_dim", tuple(embed_dims)), Choice("depth", tuple(depths))
    choices = [Choice("resolution", tuple(resolutions)), embed_dim, depth]
    _check(name, {"embed_dims": embed_dims, "depths": depths, "heads": heads}, mlp_ratios)
    slots = [Slot("patch_embed", lambda width: PatchEmbed(in_channels, width, _PATCH), ("embed_dim",))]
    for b in range(max(depths)):
        needs = depth.needs_for(b)
        reads = (
            Choice(f"block{b}.heads", tuple(heads), needs),
            Choice(f"block{b}.mlp_ratio", tuple(mlp_ratios), needs),
        )
        slots.append(Slot(f"blocks.{b}", _block(b), ("depth", "embed_dim", *(choice.name for choice in reads)), _PATCH))
        choices += reads
    slots.append(Slot("head", lambda width: TokenHead(width, num_classes), ("embed_dim",), _PATCH))
    return Family(name, SearchSpace(choices), tuple(slots), in_channels, resolution_multiple=_PATCH)


def _block(b: int) -> Callable[[int, int, int, float], TransformerBlock | None]:
    def block(depth: int, embed_dim: int, heads: int, mlp_ratio: float) -> TransformerBlock | None:
        if b >= depth:
            return None
        return TransformerBlock(embed_dim, heads, round(mlp_ratio * embed_dim))

    return block


def _check(name: str, counts: Mapping[str, Sequence[int]], mlp_ratios: Sequence[float]) -> None:
    for option, values in counts.items():
        for value in values:
            if type(value) is not int or value < 1:
                raise FamilyError(f"{name}: {value!r} in {option} is not allowed; give whole numbers from 1 on")
    for ratio in mlp_ratios:
        if type(ratio) not in (int, float) or not 0 < ratio < math.inf:
            raise FamilyError(f"{name}: {ratio!r} in mlp_ratios is not allowed; give numbers above 0")
        for width in counts["embed_dims"]:
            hidden = ratio * width
            if not math.isclose(hidden, round(hidden)):
                raise FamilyError(
                    f"{name}: {ratio!r} in mlp_ratios makes {hidden:g} hidden channels of embed_dim {width}; "
                    "give ratios and widths whose products are whole numbers"
                )
