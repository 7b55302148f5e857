"""Stages of inverted residuals with elastic depth, kernel and expansion, as several families have them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ofa import Choice, Slot
from supernets.blocks import MBConv


@dataclass(frozen=True)
class Stage:
    """What is fixed in a stage: its output channels, the first block's stride, activation, squeeze-and-excite."""

    out_channels: int
    stride: int
    act: str
    se: bool


def mbconv_stages(
    stages: Sequence[Stage],
    in_channels: int,
    reduction: int,
    depths: Sequence[int],
    kernels: Sequence[int],
    expands: Sequence[int],
) -> tuple[list[Choice], list[Slot]]:
    """The choices and slots of stages in which every block has its own kernel and expansion.

    Args:
        stages: in the order in which data flows.
        in_channels: channels that enter the first stage.
        reduction: how many times smaller than the image the first stage's input is.
        depths: allowed numbers of blocks per stage; the first ones are kept.
        kernels: allowed depthwise kernels.
        expands: allowed ratios of hidden to input channels.
    """
    choices, slots = [], []
    for s, stage in enumerate(stages):
        depth = Choice(f"stage{s}.depth", tuple(depths))
        choices.append(depth)
        for b in range(max(depths)):
            needs = (depth.name, b + 1) if b + 1 > min(depths) else None
            kernel = Choice(f"stage{s}.block{b}.kernel", tuple(kernels), needs)
            expand = Choice(f"stage{s}.block{b}.expand", tuple(expands), needs)
            choices += [kernel, expand]
            block = _block(b, stage, in_channels if b == 0 else stage.out_channels)
            slots.append(Slot(f"stages.{s}.{b}", block, (depth.name, kernel.name, expand.name), reduction))
            if b == 0:
                reduction *= stage.stride
        in_channels = stage.out_channels
    return choices, slots


def _block(b: int, stage: Stage, in_channels: int) -> Callable[[int, int, int], MBConv | None]:
    stride = stage.stride if b == 0 else 1
    residual = stride == 1 and in_channels == stage.out_channels

    def block(depth: int, kernel: int, expand: int) -> MBConv | None:
        if b >= depth:
            return None
        return MBConv(in_channels, stage.out_channels, kernel, stride, expand, stage.se, stage.act, residual)

    return block
