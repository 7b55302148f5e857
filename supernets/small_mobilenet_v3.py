"""A MobileNetV3 space for images of 28 to 64 pixels, small enough to train in minutes on a laptop's CPU."""

from collections.abc import Sequence
from functools import partial

from ofa import Family
from supernets.blocks.convolutions import ConvNorm, Head, scaled
from supernets.blocks.stages import Stage, add_mbconv_stages
from supernets.layout import Layout


def family(
    num_classes: int = 10,
    in_channels: int = 3,
    resolutions: Sequence[int] = (28, 32, 40, 48, 56, 64),
    width_mult: float = 1.0,
    dropout: float = 0.0,
) -> Family:
    """Return the family: three stages with elastic depth, kernel and expansion; 3.8x10^9 archs per resolution.

    Arguments: see `supernets.ofa_mobilenet_v3.family`.
    """
    stem, *widths, conv, hidden = (scaled(c, width_mult) for c in (16, 16, 32, 64, 192, 192))
    strides, acts, se = (1, 2, 2), ("relu", "hard_swish", "hard_swish"), (False, True, True)
    stages = [Stage(*fields) for fields in zip(widths, strides, acts, se, strict=True)]
    layout = Layout(resolutions)
    layout.block("stem", partial(ConvNorm, in_channels, stem, 3, 2), stride=2)
    add_mbconv_stages(layout, stages, in_channels=stem, depths=(1, 2, 3, 4), kernels=(3, 5), expands=(2, 3, 4))
    layout.block("head", partial(Head, widths[-1], conv, hidden, num_classes, dropout))
    return layout.family("small_mobilenet_v3", in_channels)
