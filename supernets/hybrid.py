"""Convolutions first, then attention where maps are small; elastic in resolution, depth, width, kernel, embedding
dimension, heads and MLP ratio.

Stages of inverted residuals, then stages of transformer blocks, as in CoAtNet (arXiv 2106.04803) and LeViT
(2104.01136). The first transformer stage works on the map of the last convolutional one, the second halves it.
BatchNorm in the convolutional part, LayerNorm in the transformers; hard swish throughout, which is cheap on CPUs.
Heads have 32 channels, so a network with fewer heads has the first ones of the largest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from ofa import Choice, Family, SearchSpace, Slot
from supernets.blocks.convolutions import ConvNorm, MBConv
from supernets.blocks.windows import TokenHead, WindowBlock

_ACT = "hard_swish"
_HEAD_DIM = 32


@dataclass(frozen=True)
class _ConvStage:
    """Inverted residuals: stride of the first, squeeze-and-excite, allowed values."""

    stride: int
    se: bool
    depths: tuple[int, ...]
    widths: tuple[int, ...]
    kernels: tuple[int, ...]
    expands: tuple[int, ...]

    def parts(self, s: int, channels: Choice, reduction: int) -> tuple[Choice, list[Choice], list[Slot]]:
        """The choice of the stage's channels, all its choices and its slots.

        Args:
            s: the stage's number.
            channels: that enter the stage.
            reduction: of the map that enters the stage.
        """
        depth, width = Choice(f"stage{s}.depth", self.depths), Choice(f"stage{s}.width", self.widths)
        choices, slots = [depth, width], []
        for b in range(max(self.depths)):
            needs = depth.needs_for(b)
            kernel = Choice(f"stage{s}.block{b}.kernel", self.kernels, needs)
            expand = Choice(f"stage{s}.block{b}.expand", self.expands, needs)
            choices += [kernel, expand]
            block, first = (self._first, channels) if b == 0 else (partial(self._later, b), depth)
            reads = (first.name, width.name, kernel.name, expand.name)
            slots.append(Slot(f"stages.{s}.{b}", block, reads, reduction if b == 0 else reduction * self.stride))
        return width, choices, slots

    def _first(self, in_channels: int, width: int, kernel: int, expand: int) -> MBConv:
        return MBConv(in_channels, width, kernel, self.stride, expand, self.se, _ACT, residual=False)

    def _later(self, b: int, depth: int, width: int, kernel: int, expand: int) -> MBConv | None:
        return None if b >= depth else MBConv(width, width, kernel, 1, expand, self.se, _ACT, residual=True)


@dataclass(frozen=True)
class _TransformerStage:
    """A convolution to the embedding dimension, its stride, then transformer blocks; allowed values.

    `window` bounds the sides of attention in tokens: larger maps are cut into windows.
    """

    stride: int
    window: int
    depths: tuple[int, ...]
    embed_dims: tuple[int, ...]
    heads: tuple[int, ...]
    mlp_ratios: tuple[int, ...]

    def parts(self, s: int, channels: Choice, reduction: int) -> tuple[Choice, list[Choice], list[Slot]]:
        """As `_ConvStage.parts`."""
        depth, embed_dim = Choice(f"stage{s}.depth", self.depths), Choice(f"stage{s}.embed_dim", self.embed_dims)
        choices = [depth, embed_dim]
        slots = [Slot(f"stages.{s}.embed", self._embed, (channels.name, embed_dim.name), reduction)]
        for b in range(max(self.depths)):
            needs = depth.needs_for(b)
            heads = Choice(f"stage{s}.block{b}.heads", self.heads, needs)
            mlp_ratio = Choice(f"stage{s}.block{b}.mlp_ratio", self.mlp_ratios, needs)
            choices += [heads, mlp_ratio]
            reads = (depth.name, embed_dim.name, heads.name, mlp_ratio.name)
            slots.append(Slot(f"stages.{s}.{b}", partial(self._block, b), reads, reduction * self.stride))
        return embed_dim, choices, slots

    def _embed(self, in_channels: int, embed_dim: int) -> ConvNorm:
        return ConvNorm(in_channels, embed_dim, kernel=1 if self.stride == 1 else 3, stride=self.stride, act="identity")

    def _block(self, b: int, depth: int, embed_dim: int, heads: int, mlp_ratio: int) -> WindowBlock | None:
        if b >= depth:
            return None
        return WindowBlock(embed_dim, heads, _HEAD_DIM * heads, self.window, mlp_ratio, act=_ACT)


def hybrid(
    num_classes: int = 1000,
    in_channels: int = 3,
    resolutions: Sequence[int] = (160, 192, 224, 256, 288),
    dropout: float = 0.0,
) -> Family:
    """From 48 to 1637 million MACs at 224 pixels, 0.43 to 12.5 million parameters, 10^22 archs per resolution.

    Attention sees whole maps up to 288 pixels; larger ones are cut into windows.
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
    """For images of 28 to 64 pixels, small enough to train in minutes on a laptop's CPU.

    From 2.4 to 12.2 million MACs at 28 gray pixels, 0.09 to 0.40 million parameters, 10^7 archs per resolution.
    Attention sees whole maps up to 64 pixels; larger ones are cut into windows.
    """
    stages = (
        _ConvStage(1, False, (1, 2), (16, 24), (3, 5), (2, 3)),
        _ConvStage(2, True, (1, 2, 3), (32, 40), (3, 5), (2, 3)),
        _TransformerStage(1, 16, (1, 2), (48, 64), (1, 2), (2, 3)),
        _TransformerStage(2, 16, (1, 2), (64, 96), (2, 3), (2, 3)),
    )
    return _family("hybrid_small", (16,), stages, num_classes, in_channels, resolutions, dropout)


def _family(
    name: str,
    stem_widths: tuple[int, ...],
    stages: Sequence[_ConvStage | _TransformerStage],
    num_classes: int,
    in_channels: int,
    resolutions: Sequence[int],
    dropout: float,
) -> Family:
    channels, reduction = Choice("stem.width", stem_widths), 2
    choices = [Choice("resolution", tuple(resolutions)), channels]
    slots = [Slot("stem", lambda width: ConvNorm(in_channels, width, stride=2, act=_ACT), (channels.name,))]
    for s, stage in enumerate(stages):
        channels, stage_choices, stage_slots = stage.parts(s, channels, reduction)
        choices += stage_choices
        slots += stage_slots
        reduction *= stage.stride
    slots.append(Slot("head", lambda dim: TokenHead(dim, num_classes, dropout), (channels.name,), reduction))
    return Family(name=name, space=SearchSpace(choices), slots=tuple(slots), in_channels=in_channels)
