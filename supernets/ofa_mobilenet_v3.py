"""The MobileNetV3 space of once-for-all: elastic resolution, depth, expansion, kernel (arXiv 1908.09791, 3.2)."""

from __future__ import annotations

from collections.abc import Sequence

from ofa import Choice, Family, SearchSpace, Slot
from ofa.supernet.rules import KernelTransform
from supernets.blocks.convolutions import ConvNorm, Head, MBConv, scaled
from supernets.blocks.stages import Stage, mbconv_stages


def family(
    num_classes: int = 1000,
    in_channels: int = 3,
    resolutions: Sequence[int] = tuple(range(128, 225, 4)),
    width_mult: float = 1.0,
    dropout: float = 0.1,
    kernel_transforms: bool = True,
) -> Family:
    """About 2x10^19 archs per resolution; 7.7M shared parameters at width 1.0 (published networks: 1.0 and 1.2).

    `kernel_transforms` makes smaller kernels from larger ones by learned matrices; without, they are the centers.
    """
    stem, first, *widths, conv, hidden = (scaled(c, width_mult) for c in (16, 16, 24, 40, 80, 112, 160, 960, 1280))
    strides, acts = (2, 2, 2, 1, 2), ("relu", "relu", "hard_swish", "hard_swish", "hard_swish")
    se = (False, True, False, True, True)
    stages = [Stage(*fields) for fields in zip(widths, strides, acts, se, strict=True)]
    kernels = (3, 5, 7)
    choices, slots = mbconv_stages(
        stages, in_channels=first, reduction=2, depths=(2, 3, 4), kernels=kernels, expands=(3, 4, 6)
    )
    return Family(
        name="ofa_mobilenet_v3",
        space=SearchSpace([Choice("resolution", tuple(resolutions)), *choices]),
        slots=(
            Slot("stem", lambda: ConvNorm(in_channels, stem, kernel=3, stride=2)),
            Slot("first", lambda: MBConv(stem, first, 3, 1, 1, se=False, act="relu", residual=True), reduction=2),
            *slots,
            Slot("head", lambda: Head(widths[-1], conv, hidden, num_classes, dropout), reduction=32),
        ),
        in_channels=in_channels,
        rules={"stages.*.depthwise.conv.weight": KernelTransform(kernels)} if kernel_transforms else {},
    )
