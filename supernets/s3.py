"""The four-stage windowed space of AutoFormerV2, "Searching the Search Space of Vision Transformer" (arXiv 2111.14725).

As released (model and configurations in microsoft/Cream, AutoFormerV2): 4 by 4 patches with LayerNorm, LayerNorm
before attention and MLP, GELU, biases by relative position, windows shifted by half in every second block, patch
merging between stages, LayerNorm and mean before the classifier; no absolute positions. The released networks have
embedding dimensions 96, 192, 384, 768, heads 3, 6, 12, 24 of 32 channels each, MLP ratio 4; tiny has depths 2, 2, 6, 2
and windows 7, 7, 14, 7; small 2, 2, 18, 2 and 14 everywhere; base 2, 2, 30, 2 and 7, 7, 14, 7.

The paper prints its search spaces in a figure only. The values around the released ones are this project's choice:
depth one less or more (two in the third stage), embedding dimension a sixth less or more, heads a third less or more,
half or one and a half of the q, k, v channels, window 7 or 14, MLP ratio 3, 3.5 or 4. Every number of heads divides
every `qkv_dim`. Where a window does not divide a map, windows are evened out, see
`supernets.blocks.windows.WindowBlock`;
at 224 pixels they all divide. The released networks keep a smaller table of biases where a window is larger than the
map; here that is the middle of the table.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ofa import Choice, Family, SearchSpace, Slot
from ofa.supernet.rules import Center
from supernets.blocks.windows import PatchEmbed, PatchMerging, TokenHead, WindowBlock


def tiny(
    num_classes: int = 1000,
    in_channels: int = 3,
    resolutions: Sequence[int] = (192, 224, 256),
    dropout: float = 0.0,
) -> Family:
    """Around the released AutoFormerV2-T of 28M parameters; the space spans 9M to 59M."""
    return _s3("s3_tiny", (4, 6, 8), num_classes, in_channels, resolutions, dropout)


def small(
    num_classes: int = 1000,
    in_channels: int = 3,
    resolutions: Sequence[int] = (192, 224, 256),
    dropout: float = 0.0,
) -> Family:
    """Around the released AutoFormerV2-S of 50M parameters; the space spans 19M to 90M."""
    return _s3("s3_small", (16, 18, 20), num_classes, in_channels, resolutions, dropout)


def base(
    num_classes: int = 1000,
    in_channels: int = 3,
    resolutions: Sequence[int] = (192, 224, 256),
    dropout: float = 0.0,
) -> Family:
    """Around the released AutoFormerV2-B of 71M parameters; the space spans 30M to 122M."""
    return _s3("s3_base", (28, 30, 32), num_classes, in_channels, resolutions, dropout)


def _s3(
    name: str,
    third_depths: tuple[int, ...],
    num_classes: int,
    in_channels: int,
    resolutions: Sequence[int],
    dropout: float,
) -> Family:
    depths = ((1, 2, 3), (1, 2, 3), third_depths, (1, 2, 3))
    choices = [Choice("resolution", tuple(resolutions))]
    slots = []
    for s in range(4):
        depth = Choice(f"stage{s}.depth", depths[s])
        embed_dim = Choice(f"stage{s}.embed_dim", _scaled((80, 96, 112), s))
        choices += [depth, embed_dim]
        if s == 0:
            slots.append(Slot("patch_embed", lambda dim: PatchEmbed(in_channels, dim), (embed_dim.name,)))
        else:
            before = (f"stage{s - 1}.embed_dim", embed_dim.name)
            slots.append(Slot(f"stages.{s}.merging", PatchMerging, before, reduction=2 ** (s + 1)))
        for b in range(max(depths[s])):
            needs = depth.needs_for(b)
            own = [
                Choice(f"stage{s}.block{b}.window", (7, 14), needs),
                Choice(f"stage{s}.block{b}.heads", _scaled((2, 3, 4), s), needs),
                Choice(f"stage{s}.block{b}.mlp_ratio", (3, 3.5, 4), needs),
                Choice(f"stage{s}.block{b}.qkv_dim", _scaled((48, 96, 144), s), needs),
            ]
            choices += own
            reads = (depth.name, embed_dim.name, *(choice.name for choice in own))
            slots.append(Slot(f"stages.{s}.{b}", _block(b), reads, reduction=2 ** (s + 2)))
    head = Slot("head", lambda dim: TokenHead(dim, num_classes, dropout), ("stage3.embed_dim",), reduction=32)
    return Family(
        name=name,
        space=SearchSpace(choices),
        slots=(*slots, head),
        in_channels=in_channels,
        rules={"*.bias_table": Center(2)},
    )


def _scaled(values: tuple[int, ...], stage: int) -> tuple[int, ...]:
    return tuple(value * 2**stage for value in values)


def _block(b: int) -> Callable[[int, int, int, int, float, int], WindowBlock | None]:
    def block(
        depth: int, embed_dim: int, window: int, heads: int, mlp_ratio: float, qkv_dim: int
    ) -> WindowBlock | None:
        if b >= depth:
            return None
        return WindowBlock(embed_dim, heads, qkv_dim, window, mlp_ratio, shift=b % 2 == 1)

    return block
