"""Spaces around AutoFormerV2's networks, "Searching the Search Space of Vision Transformer" (arXiv 2111.14725).

The architecture is that of the released code (microsoft/Cream, AutoFormerV2). The paper prints its search spaces in a
figure only; docs/families.md says how the values here were chosen around the released networks.
"""

from collections.abc import Sequence
from functools import partial

from ofa import Family
from supernets.blocks.windows import PatchEmbed, PatchMerging, TokenHead, WindowBlock
from supernets.layout import Layout
from supernets.rules import Center


def _family(
    name: str,
    third_depths: tuple[int, ...],
    num_classes: int = 1000,
    in_channels: int = 3,
    resolutions: Sequence[int] = (192, 224, 256),
    dropout: float = 0.0,
) -> Family:
    """Return a family; dropout is the probability before the classifier."""
    layout = Layout(resolutions)
    for s, depths in enumerate(((1, 2, 3), (1, 2, 3), third_depths, (1, 2, 3))):
        depth = layout.choice(f"stage{s}.depth", depths)
        if s == 0:
            embed_dim = layout.choice("stage0.embed_dim", (80, 96, 112))
            layout.block("patch_embed", partial(PatchEmbed, in_channels), embed_dim, stride=4)
        else:
            before, embed_dim = embed_dim, layout.choice(f"stage{s}.embed_dim", _scaled((80, 96, 112), s))
            layout.block(f"stages.{s}.merging", PatchMerging, before, embed_dim, stride=2)
        own = {
            "window": (7, 14),
            "heads": _scaled((2, 3, 4), s),
            "mlp_ratio": (3, 3.5, 4),
            "qkv_dim": _scaled((48, 96, 144), s),
        }
        blocks = [partial(_block, b % 2 == 1) for b in range(max(depths))]
        layout.stage(s, depth, blocks, shared=(embed_dim,), own=own)
    layout.block("head", partial(TokenHead, num_classes=num_classes, dropout=dropout), embed_dim)
    return layout.family(name, in_channels, rules={"*.bias_table": Center(2)})


tiny = partial(_family, "s3_tiny", (4, 6, 8))
"""The space around AutoFormerV2-T (28M parameters): 9M to 59M parameters."""
small = partial(_family, "s3_small", (16, 18, 20))
"""The space around AutoFormerV2-S (50M parameters): 19M to 90M parameters."""
base = partial(_family, "s3_base", (28, 30, 32))
"""The space around AutoFormerV2-B (71M parameters): 30M to 122M parameters."""


def _scaled(values: tuple[int, ...], stage: int) -> tuple[int, ...]:
    return tuple(value * 2**stage for value in values)


def _block(shift: bool, embed_dim: int, window: int, heads: int, mlp_ratio: float, qkv_dim: int) -> WindowBlock:
    return WindowBlock(embed_dim, heads, qkv_dim, window, mlp_ratio, shift)
