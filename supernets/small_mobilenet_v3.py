"""A MobileNetV3 space for images of 28 to 64 pixels, small enough to train in minutes on a laptop's CPU."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from ofa import Choice, Family, SearchSpace, Slot
from supernets.blocks.convolutions import ConvNorm, Head, scaled
from supernets.blocks.stages import Stage, mbconv_stages


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
    choices, slots = mbconv_stages(
        [Stage(*fields) for fields in zip(widths, strides, acts, se, strict=True)],
        in_channels=stem,
        reduction=2,
        depths=(1, 2, 3, 4),
        kernels=(3, 5),
        expands=(2, 3, 4),
    )
    return Family(
        name="small_mobilenet_v3",
        space=SearchSpace([Choice("resolution", tuple(resolutions)), *choices]),
        slots=(
            Slot("stem", partial(ConvNorm, in_channels, stem, kernel=3, stride=2)),
            *slots,
            Slot("head", partial(Head, widths[-1], conv, hidden, num_classes, dropout), reduction=8),
        ),
        in_channels=in_channels,
        classifiers=("head.classifier",),
    )
