"""Stages of inverted residuals in which every block has its own kernel and expansion."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from supernets.blocks.convolutions import MBConv
from supernets.layout import Layout


@dataclass(frozen=True)
class Stage:
    """The fixed part of a stage: channels of every block's output, stride of the first, squeeze-and-excite or not.

    `depths` are the allowed numbers of blocks, if they are not those of the other stages.
    """

    out_channels: int
    stride: int
    act: str
    se: bool
    depths: tuple[int, ...] | None = None


def add_mbconv_stages(
    layout: Layout,
    stages: Sequence[Stage],
    *,
    in_channels: int,
    depths: Sequence[int],
    kernels: Sequence[int],
    expands: Sequence[int],
    norm_eps: float = 1e-5,
) -> None:
    """Add stages to a layout, with the choices `stage{s}.depth`, `stage{s}.block{b}.kernel` and `.expand`.

    `in_channels` are those of the first stage, `kernels` the sizes of depthwise kernels, `expands` ratios of hidden to
    input channels, `norm_eps` is BatchNorm's epsilon.
    """
    for s, stage in enumerate(stages):
        depth = layout.choice(f"stage{s}.depth", stage.depths or depths)
        first = partial(_block, stage, norm_eps, in_channels, stage.stride)
        later = partial(_block, stage, norm_eps, stage.out_channels, 1)
        blocks = [first, *[later] * (int(depth.values[-1]) - 1)]
        layout.stage(s, depth, blocks, own={"kernel": kernels, "expand": expands}, stride=stage.stride)
        in_channels = stage.out_channels


def _block(stage: Stage, norm_eps: float, in_channels: int, stride: int, kernel: int, expand: int) -> MBConv:
    residual = stride == 1 and in_channels == stage.out_channels
    return MBConv(in_channels, stage.out_channels, kernel, stride, expand, stage.se, stage.act, residual, norm_eps)
