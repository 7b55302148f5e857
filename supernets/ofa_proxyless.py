"""The ProxylessNAS space of once-for-all (arXiv 1908.09791, section 3.2), with the widths of arXiv 1812.00332."""

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
    width_mult: float = 1.3,
    dropout: float = 0.1,
    kernel_transforms: bool = True,
) -> Family:
    """Return the family: MobileNetV2's blocks with elastic depth, expansion and kernel; 2x10^20 archs per resolution.

    BatchNorm's epsilon is 1e-3. The published network has width 1.3. Arguments: see
    `supernets.ofa_mobilenet_v3.family`.
    """
    stem, first, *widths, last, conv = (scaled(c, width_mult) for c in (32, 16, 24, 40, 80, 96, 192, 320, 1280))
    act, eps, kernels = "relu6", 1e-3, (3, 5, 7)
    stages = [Stage(*fields, act, se=False) for fields in zip(widths, (2, 2, 2, 1, 2), strict=True)]
    stages.append(Stage(last, 1, act, se=False, depths=(1,)))
    layout = Layout(resolutions)
    layout.block("stem", partial(ConvNorm, in_channels, stem, 3, 2, act, norm_eps=eps), stride=2)
    layout.block("first", partial(MBConv, stem, first, 3, 1, 1, False, act, residual=False, norm_eps=eps))
    space = {"depths": (2, 3, 4), "kernels": kernels, "expands": (3, 4, 6)}
    add_mbconv_stages(layout, stages, in_channels=first, norm_eps=eps, **space)
    layout.block("head", partial(Head, last, conv, None, num_classes, dropout, act, eps))
    rules = {"stages.*.depthwise.conv.weight": KernelTransform(kernels)} if kernel_transforms else {}
    return layout.family("ofa_proxyless", in_channels, rules=rules)
