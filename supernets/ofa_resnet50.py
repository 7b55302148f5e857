"""The ResNet50-D space of once-for-all (arXiv 1908.09791; network: arXiv 1812.01187), as published in its code."""

from collections.abc import Sequence
from functools import partial

from ofa import Family
from supernets.blocks.convolutions import Bottleneck, ConvNorm, Head, MaxPool, scaled
from supernets.layout import Layout

WIDTHS = (0.65, 0.8, 1.0)
"""Ratios of a stage's channels to those of the largest network."""
EXPANDS = (0.2, 0.25, 0.35)
"""Ratios of a bottleneck's hidden to its output channels."""


def family(
    num_classes: int = 1000,
    in_channels: int = 3,
    resolutions: Sequence[int] = (128, 144, 160, 176, 192, 224, 240, 256),
    dropout: float = 0.0,
) -> Family:
    """Return the family: elastic resolution, depth, width and bottleneck ratio; 1.6x10^12 archs per resolution.

    `stem.depth` is 2 with the stem's residual convolution and 0 without it. `stem.mid_width` is the width of the stem's
    first two convolutions (0.65 and 0.8 would both give 24 channels), `stem.width` that of its last. `stage{s}.depth`
    is the number of blocks. Arguments: see `supernets.ofa_mobilenet_v3.family`.
    """
    layout = Layout(resolutions)
    depth = layout.choice("stem.depth", (0, 2))
    mid_width, width = layout.choice("stem.mid_width", (0.65, 1.0)), layout.choice("stem.width", WIDTHS)
    layout.block("stem.0", lambda mid: ConvNorm(in_channels, _mid(mid), 3, 2, "relu"), mid_width, stride=2)
    layout.block("stem.1", _stem_residual, depth, mid_width)
    layout.block("stem.2", lambda mid, last: ConvNorm(_mid(mid), scaled(64, last), 3, 1, "relu"), mid_width, width)
    layout.block("stem.pool", lambda last: MaxPool(scaled(64, last)), width, stride=2)
    before = 64
    for s, (channels, stride, base) in enumerate(((256, 1, 2), (512, 2, 2), (1024, 2, 4), (2048, 2, 2))):
        depth = layout.choice(f"stage{s}.depth", (base, base + 1, base + 2))
        in_width, width = width, layout.choice(f"stage{s}.width", WIDTHS)
        first, later = partial(_first_block, before, channels, stride), partial(_block, channels)
        blocks, own = [first, *[later] * (base + 1)], {"expand": EXPANDS}
        layout.stage(s, depth, blocks, shared=(width,), own=own, in_width=in_width, stride=stride)
        before = channels
    layout.block("head", lambda last: Head(scaled(2048, last), None, None, num_classes, dropout), width)
    return layout.family("ofa_resnet50", in_channels)


def _mid(width: float) -> int:
    return scaled(scaled(64, width) // 2)


def _stem_residual(depth: int, mid_width: float) -> ConvNorm | None:
    return ConvNorm(_mid(mid_width), _mid(mid_width), 3, 1, "relu", residual=True) if depth else None


def _first_block(
    in_channels: int, channels: int, stride: int, in_width: float, width: float, expand: float
) -> Bottleneck:
    return Bottleneck(scaled(in_channels, in_width), scaled(channels, width), stride, expand, downsample=True)


def _block(channels: int, width: float, expand: float) -> Bottleneck:
    return Bottleneck(scaled(channels, width), scaled(channels, width), 1, expand, downsample=False)
