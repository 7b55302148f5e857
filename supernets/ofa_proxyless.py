"""The ProxylessNAS space of once-for-all (arXiv 1908.09791, section 3.2), with the widths of arXiv 1812.00332."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from ofa import Choice, Family, SearchSpace, Slot
from supernets.blocks.convolutions import ConvNorm, Head, MBConv, scaled
from supernets.blocks.stages import Stage, mbconv_stages
from supernets.rules import KernelTransform


def family(
    num_classes: int = 1000,
    in_channels: int = 3,
    resolutions: Sequence[int] = tuple(range(128, 225, 4)),
    width_mult: float = 1.3,
    dropout: float = 0.1,
    kernel_transforms: bool = True,
) -> Family:
    """Return the family: MobileNetV2's blocks with elastic depth, expansion and kernel; 2x10^20 archs per resolution.

    BatchNorm's epsilon is 1e-3. The published network has width 1.3. Arguments: see
    `supernets.ofa_mobilenet_v3.family`.
    """
    stem, first, *widths, conv = (scaled(c, width_mult) for c in (32, 16, 24, 40, 80, 96, 192, 320, 1280))
    act, eps, kernels = "relu6", 1e-3, (3, 5, 7)
    stages = [Stage(*fields, act, se=False) for fields in zip(widths[:-1], (2, 2, 2, 1, 2), strict=True)]
    choices, slots = mbconv_stages(
        [*stages, Stage(widths[-1], 1, act, se=False, depths=(1,))],
        in_channels=first,
        reduction=2,
        depths=(2, 3, 4),
        kernels=kernels,
        expands=(3, 4, 6),
        norm_eps=eps,
    )
    return Family(
        name="ofa_proxyless",
        space=SearchSpace([Choice("resolution", tuple(resolutions)), *choices]),
        slots=(
            Slot("stem", partial(ConvNorm, in_channels, stem, kernel=3, stride=2, act=act, norm_eps=eps)),
            Slot("first", partial(MBConv, stem, first, 3, 1, 1, False, act, residual=False, norm_eps=eps), reduction=2),
            *slots,
            Slot("head", partial(Head, widths[-1], conv, None, num_classes, dropout, act, eps), reduction=32),
        ),
        in_channels=in_channels,
        rules={"stages.*.depthwise.conv.weight": KernelTransform(kernels)} if kernel_transforms else {},
        classifiers=("head.classifier",),
    )
