"""The ResNet50-D space of once-for-all (arXiv 1908.09791; network: arXiv 1812.01187), as published in its code."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from ofa import Choice, Family, SearchSpace, Slot
from supernets.blocks.convolutions import Bottleneck, ConvNorm, Head, MaxPool, scaled
from supernets.blocks.stages import stage_blocks

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
    stem_depth = Choice("stem.depth", (0, 2))
    mid_width, stem_width = Choice("stem.mid_width", (0.65, 1.0)), Choice("stem.width", WIDTHS)
    choices, slots = _stages(stem_width, reduction=4)
    return Family(
        name="ofa_resnet50",
        space=SearchSpace([Choice("resolution", tuple(resolutions)), stem_depth, mid_width, stem_width, *choices]),
        slots=(
            Slot("stem.0", partial(_stem_conv, in_channels), (mid_width.name,)),
            Slot("stem.1", _stem_residual, (stem_depth.name, mid_width.name), reduction=2),
            Slot("stem.2", _stem_last, (mid_width.name, stem_width.name), reduction=2),
            Slot("stem.pool", _stem_pool, (stem_width.name,), reduction=2),
            *slots,
            Slot("head", partial(_head, num_classes, dropout), ("stage3.width",), reduction=32),
        ),
        in_channels=in_channels,
        classifiers=("head.classifier",),
    )


def _stem(width: float) -> int:
    return scaled(64, width)


def _mid(width: float) -> int:
    return scaled(_stem(width) // 2)


def _stem_conv(in_channels: int, mid_width: float) -> ConvNorm:
    return ConvNorm(in_channels, _mid(mid_width), 3, 2, "relu")


def _stem_residual(depth: int, mid_width: float) -> ConvNorm | None:
    return ConvNorm(_mid(mid_width), _mid(mid_width), 3, 1, "relu", residual=True) if depth else None


def _stem_last(mid_width: float, width: float) -> ConvNorm:
    return ConvNorm(_mid(mid_width), _stem(width), 3, 1, "relu")


def _stem_pool(width: float) -> MaxPool:
    return MaxPool(_stem(width))


def _head(num_classes: int, dropout: float, width: float) -> Head:
    return Head(scaled(2048, width), None, None, num_classes, dropout)


def _stages(in_width: Choice, reduction: int) -> tuple[list[Choice], list[Slot]]:
    choices, slots = [], []
    in_channels = 64
    for s, (channels, stride, base) in enumerate(((256, 1, 2), (512, 2, 2), (1024, 2, 4), (2048, 2, 2))):
        depth, width = Choice(f"stage{s}.depth", (base, base + 1, base + 2)), Choice(f"stage{s}.width", WIDTHS)
        first = partial(_first_block, in_channels, channels, stride)
        own_choices, stage_slots = stage_blocks(
            depth,
            [first, *[partial(_block, channels)] * (base + 1)],
            stage=s,
            shared=(width,),
            own={"expand": EXPANDS},
            in_width=in_width,
            reduction=reduction,
            stride=stride,
        )
        choices += [depth, width, *own_choices]
        slots += stage_slots
        in_channels, in_width, reduction = channels, width, reduction * stride
    return choices, slots


def _first_block(
    in_channels: int, channels: int, stride: int, in_width: float, width: float, expand: float
) -> Bottleneck:
    return Bottleneck(scaled(in_channels, in_width), scaled(channels, width), stride, expand, downsample=True)


def _block(channels: int, width: float, expand: float) -> Bottleneck:
    return Bottleneck(scaled(channels, width), scaled(channels, width), 1, expand, downsample=False)
