"""Convolutions, then attention where maps are small; elastic in all seven dimensions.

Stages of inverted residuals, then stages of transformer blocks, as in CoAtNet (arXiv 2106.04803) and LeViT
(arXiv 2104.01136). BatchNorm in the convolutional part, LayerNorm in the transformers, hard swish throughout, which is
cheap on CPUs. Heads have 32 channels each, so that a network with fewer heads has the first ones of the largest.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from ofa import Choice, Family
from supernets.blocks.convolutions import ConvNorm, MBConv
from supernets.blocks.windows import TokenHead, WindowBlock
from supernets.layout import Layout

_ACT = "hard_swish"
_HEAD_DIM = 32


def hybrid(
    num_classes: int = 1000,
    in_channels: int = 3,
    resolutions: Sequence[int] = (160, 192, 224, 256, 288),
    dropout: float = 0.0,
) -> Family:
    """Return the hybrid family: 48M to 1637M MACs at 224 pixels, 0.43M to 12.5M parameters, 10^22 archs per resolution.

    Attention is global up to 288 pixels; larger maps are partitioned into windows.
    """
    kernels, expands, ratios = (3, 5, 7), (2, 4, 6), (2, 3, 4)
    stages = (
        _ConvStage(2, False, (1, 2, 3), (16, 24, 32), kernels, (2, 3, 4)),
        _ConvStage(2, False, (1, 2, 3), (32, 48, 64), kernels, expands),
        _ConvStage(2, True, (1, 2, 3, 4), (64, 112, 160), kernels, expands),
        _TransformerStage(1, 18, (1, 2, 4, 6), (96, 160, 224), (2, 4, 7), ratios),
        _TransformerStage(2, 18, (1, 2, 3, 4), (128, 224, 320), (2, 6, 10), ratios),
    )
    return _family("hybrid", (16, 24), stages, num_classes, in_channels, resolutions, dropout)


def hybrid_small(
    num_classes: int = 10,
    in_channels: int = 3,
    resolutions: Sequence[int] = (28, 32, 48, 64),
    dropout: float = 0.0,
) -> Family:
    """Return the hybrid family for images of 28 to 64 pixels, small enough to train in minutes on a laptop's CPU.

    2.4M to 12.2M MACs at 28 gray pixels, 0.09M to 0.40M parameters, 10^7 archs per resolution. Attention is global up
    to 64 pixels; larger maps are partitioned into windows.
    """
    stages = (
        _ConvStage(1, False, (1, 2), (16, 24), (3, 5), (2, 3)),
        _ConvStage(2, True, (1, 2, 3), (32, 40), (3, 5), (2, 3)),
        _TransformerStage(1, 16, (1, 2), (48, 64), (1, 2), (2, 3)),
        _TransformerStage(2, 16, (1, 2), (64, 96), (2, 3), (2, 3)),
    )
    return _family("hybrid_small", (16,), stages, num_classes, in_channels, resolutions, dropout)


@dataclass(frozen=True)
class _ConvStage:
    """A stage of inverted residuals: stride of the first, squeeze-and-excite, and the allowed values."""

    stride: int
    se: bool
    depths: tuple[int, ...]
    widths: tuple[int, ...]
    kernels: tuple[int, ...]
    expands: tuple[int, ...]

    def add_to(self, layout: Layout, s: int, in_width: Choice) -> Choice:
        """Add the stage as number `s` and return the choice of its output channels."""
        depth, width = layout.choice(f"stage{s}.depth", self.depths), layout.choice(f"stage{s}.width", self.widths)
        blocks: list[Callable[..., MBConv]] = [self._first_block, *[self._block] * (max(self.depths) - 1)]
        own = {"kernel": self.kernels, "expand": self.expands}
        layout.stage(s, depth, blocks, shared=(width,), own=own, in_width=in_width, stride=self.stride)
        return width

    def _first_block(self, in_channels: int, width: int, kernel: int, expand: int) -> MBConv:
        return MBConv(in_channels, width, kernel, self.stride, expand, self.se, _ACT, residual=False)

    def _block(self, width: int, kernel: int, expand: int) -> MBConv:
        return MBConv(width, width, kernel, 1, expand, self.se, _ACT, residual=True)


@dataclass(frozen=True)
class _TransformerStage:
    """A convolution to `embed_dim` and transformer blocks: its stride, their largest window, and the allowed values."""

    stride: int
    window: int
    depths: tuple[int, ...]
    embed_dims: tuple[int, ...]
    heads: tuple[int, ...]
    mlp_ratios: tuple[int, ...]

    def add_to(self, layout: Layout, s: int, in_width: Choice) -> Choice:
        """Add the stage as number `s` and return the choice of its output channels."""
        depth = layout.choice(f"stage{s}.depth", self.depths)
        embed_dim = layout.choice(f"stage{s}.embed_dim", self.embed_dims)
        embed = partial(ConvNorm, kernel=1 if self.stride == 1 else 3, stride=self.stride, act="identity")
        layout.block(f"stages.{s}.embed", embed, in_width, embed_dim, stride=self.stride)
        own = {"heads": self.heads, "mlp_ratio": self.mlp_ratios}
        layout.stage(s, depth, [self._block] * max(self.depths), shared=(embed_dim,), own=own)
        return embed_dim

    def _block(self, embed_dim: int, heads: int, mlp_ratio: int) -> WindowBlock:
        return WindowBlock(embed_dim, heads, _HEAD_DIM * heads, self.window, mlp_ratio, act=_ACT)


def _family(
    name: str,
    stem_widths: tuple[int, ...],
    stages: Sequence[_ConvStage | _TransformerStage],
    num_classes: int,
    in_channels: int,
    resolutions: Sequence[int],
    dropout: float,
) -> Family:
    layout = Layout(resolutions)
    width = layout.choice("stem.width", stem_widths)
    layout.block("stem", partial(ConvNorm, in_channels, stride=2, act=_ACT), width, stride=2)
    for s, stage in enumerate(stages):
        width = stage.add_to(layout, s, width)
    layout.block("head", partial(TokenHead, num_classes=num_classes, dropout=dropout), width)
    return layout.family(name, in_channels)
