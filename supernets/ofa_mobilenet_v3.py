"""The MobileNetV3 space of once-for-all (arXiv 1908.09791, section 3.2)."""

from collections.abc import Sequence
from functools import partial

from ofa import Family
from supernets.blocks.convolutions import ConvNorm, Head, MBConv, scaled
from supernets.blocks.stages import Stage, add_mbconv_stages
from supernets.layout import Layout
from supernets.rules import KernelTransform


def family(
    num_classes: int = 1000,
    in_channels: int = 3,
    resolutions: Sequence[int] = tuple(range(128, 225, 4)),
    width_mult: float = 1.0,
    dropout: float = 0.1,
    kernel_transforms: bool = True,
) -> Family:
    """Return the family: elastic depth, expansion and kernel; 2x10^19 archs per resolution, 7.7M shared parameters.

    The published networks have a width multiplier of 1.0 and 1.2. Dropout is before the classifier. With
    `kernel_transforms` smaller kernels are computed from larger ones by learned matrices; otherwise they are the
    centers.
    """
    stem, first, *widths, conv, hidden = (scaled(c, width_mult) for c in (16, 16, 24, 40, 80, 112, 160, 960, 1280))
    strides, acts = (2, 2, 2, 1, 2), ("relu", "relu", "hard_swish", "hard_swish", "hard_swish")
    se, kernels = (False, True, False, True, True), (3, 5, 7)
    stages = [Stage(*fields) for fields in zip(widths, strides, acts, se, strict=True)]
    layout = Layout(resolutions)
    layout.block("stem", partial(ConvNorm, in_channels, stem, 3, 2), stride=2)
    layout.block("first", partial(MBConv, stem, first, 3, 1, 1, se=False, act="relu", residual=True))
    add_mbconv_stages(layout, stages, in_channels=first, depths=(2, 3, 4), kernels=kernels, expands=(3, 4, 6))
    layout.block("head", partial(Head, widths[-1], conv, hidden, num_classes, dropout))
    rules = {"stages.*.depthwise.conv.weight": KernelTransform(kernels)} if kernel_transforms else {}
    return layout.family("ofa_mobilenet_v3", in_channels, rules=rules)
