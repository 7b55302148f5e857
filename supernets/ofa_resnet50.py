"""The ResNet50-D space of once-for-all: elastic resolution, depth, width, bottleneck ratio.

Method: arXiv 1908.09791; network: arXiv 1812.01187. The published network's widths and depths.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ofa import Choice, Family, SearchSpace, Slot
from supernets.blocks.convolutions import Bottleneck, ConvNorm, Head, MaxPool, scaled

WIDTHS = (0.65, 0.8, 1.0)
"""Ratios to the channels of the largest network."""
EXPANDS = (0.2, 0.25, 0.35)
"""Ratios of a bottleneck's hidden to its output channels."""


def family(
    num_classes: int = 1000,
    in_channels: int = 3,
    resolutions: Sequence[int] = (128, 144, 160, 176, 192, 224, 240, 256),
    dropout: float = 0.0,
) -> Family:
    """About 1.6x10^12 archs per resolution.

    `stem.depth` is 2 with the stem's residual convolution and 0 without. `stem.mid_width` is of the stem's first two
    convolutions (0.65 and 0.8 would both give 24 channels), `stem.width` of its last; `stage{s}.depth` counts blocks.
    """
    stem_depth = Choice("stem.depth", (0, 2))
    mid_width, stem_width = Choice("stem.mid_width", (0.65, 1.0)), Choice("stem.width", WIDTHS)
    choices, slots = _stages(stem_width, reduction=4)
    return Family(
        name="ofa_resnet50",
        space=SearchSpace([Choice("resolution", tuple(resolutions)), stem_depth, mid_width, stem_width, *choices]),
        slots=(
            Slot("stem.0", lambda mid: ConvNorm(in_channels, _mid(mid), 3, 2, "relu"), (mid_width.name,)),
            Slot("stem.1", _stem_residual, (stem_depth.name, mid_width.name), reduction=2),
            Slot(
                "stem.2",
                lambda mid, width: ConvNorm(_mid(mid), _stem(width), 3, 1, "relu"),
                (mid_width.name, stem_width.name),
                reduction=2,
            ),
            Slot("stem.pool", lambda width: MaxPool(_stem(width)), (stem_width.name,), reduction=2),
            *slots,
            Slot(
                "head",
                lambda width: Head(scaled(2048, width), None, None, num_classes, dropout),
                ("stage3.width",),
                reduction=32,
            ),
        ),
        in_channels=in_channels,
    )


def _stem(width: float) -> int:
    return scaled(64, width)


def _mid(width: float) -> int:
    return scaled(_stem(width) // 2)


def _stem_residual(depth: int, width: float) -> ConvNorm | None:
    return ConvNorm(_mid(width), _mid(width), 3, 1, "relu", residual=True) if depth else None


def _stages(in_width: Choice, reduction: int) -> tuple[list[Choice], list[Slot]]:
    choices, slots = [], []
    in_channels = 64
    for s, (channels, stride, base) in enumerate(((256, 1, 2), (512, 2, 2), (1024, 2, 4), (2048, 2, 2))):
        depth = Choice(f"stage{s}.depth", (base, base + 1, base + 2))
        width = Choice(f"stage{s}.width", WIDTHS)
        choices += [depth, width]
        for b in range(base + 2):
            expand = Choice(f"stage{s}.block{b}.expand", EXPANDS, depth.needs_for(b))
            choices.append(expand)
            if b == 0:
                first = _first_block(in_channels, channels, stride)
                slots.append(Slot(f"stages.{s}.0", first, (in_width.name, width.name, expand.name), reduction))
                reduction *= stride
            else:
                later = _later_block(b, channels)
                slots.append(Slot(f"stages.{s}.{b}", later, (depth.name, width.name, expand.name), reduction))
        in_channels, in_width = channels, width
    return choices, slots


def _first_block(in_channels: int, channels: int, stride: int) -> Callable[[float, float, float], Bottleneck]:
    def block(in_width: float, width: float, expand: float) -> Bottleneck:
        return Bottleneck(scaled(in_channels, in_width), scaled(channels, width), stride, expand, downsample=True)

    return block


def _later_block(b: int, channels: int) -> Callable[[int, float, float], Bottleneck | None]:
    def block(depth: int, width: float, expand: float) -> Bottleneck | None:
        if b >= depth:
            return None
        return Bottleneck(scaled(channels, width), scaled(channels, width), 1, expand, downsample=False)

    return block
