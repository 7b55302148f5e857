"""Stages of inverted residuals, elastic in each block or as a whole, as several families have them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ofa import Choice, Slot
from supernets.blocks.convolutions import MBConv


@dataclass(frozen=True)
class Stage:
    """What is fixed in a stage: its output channels, the first block's stride, activation, squeeze-and-excite.

    Attributes:
        depths: allowed numbers of blocks, if they are not those of the other stages.
    """

    out_channels: int
    stride: int
    act: str
    se: bool
    depths: tuple[int, ...] | None = None


def mbconv_stages(
    stages: Sequence[Stage],
    in_channels: int,
    reduction: int,
    depths: Sequence[int],
    kernels: Sequence[int],
    expands: Sequence[int],
    norm_eps: float = 1e-5,
) -> tuple[list[Choice], list[Slot]]:
    """The choices and slots of stages in which every block has its own kernel and expansion.

    Args:
        stages: in the order in which data flows.
        in_channels: channels that enter the first stage.
        reduction: how many times smaller than the image the first stage's input is.
        depths: allowed numbers of blocks per stage; the first ones are kept.
        kernels: allowed depthwise kernels.
        expands: allowed ratios of hidden to input channels.
        norm_eps: BatchNorm's epsilon.
    """
    choices, slots = [], []
    for s, stage in enumerate(stages):
        depth = Choice(f"stage{s}.depth", tuple(stage.depths or depths))
        choices.append(depth)
        for b in range(int(depth.values[-1])):
            needs = depth.needs_for(b)
            kernel = Choice(f"stage{s}.block{b}.kernel", tuple(kernels), needs)
            expand = Choice(f"stage{s}.block{b}.expand", tuple(expands), needs)
            choices += [kernel, expand]
            block = _block(b, stage, in_channels if b == 0 else stage.out_channels, norm_eps)
            slots.append(Slot(f"stages.{s}.{b}", block, (depth.name, kernel.name, expand.name), reduction))
            if b == 0:
                reduction *= stage.stride
        in_channels = stage.out_channels
    return choices, slots


def _block(b: int, stage: Stage, in_channels: int, norm_eps: float) -> Callable[[int, int, int], MBConv | None]:
    stride = stage.stride if b == 0 else 1
    residual = stride == 1 and in_channels == stage.out_channels

    def block(depth: int, kernel: int, expand: int) -> MBConv | None:
        if b >= depth:
            return None
        return MBConv(in_channels, stage.out_channels, kernel, stride, expand, stage.se, stage.act, residual, norm_eps)

    return block


@dataclass(frozen=True)
class UniformStage:
    """A stage in which all blocks have one width, kernel and expansion, each with its allowed values.

    Attributes:
        widths: output channels.
        depths: numbers of blocks; the first ones are kept.
        kernels: depthwise kernels.
        expands: ratios of hidden to input channels.
        stride: of the first block.
        se: squeeze-and-excite.
    """

    widths: tuple[int, ...]
    depths: tuple[int, ...]
    kernels: tuple[int, ...]
    expands: tuple[int, ...]
    stride: int
    se: bool


def uniform_stages(
    stages: Sequence[UniformStage], in_width: Choice, reduction: int, act: str
) -> tuple[list[Choice], list[Slot]]:
    """The choices and slots of stages in which all blocks of a stage share one width, kernel and expansion.

    Every block has a shortcut, see `MBConv.residual`. A choice may have a single value.

    Args:
        stages: in the order in which data flows.
        in_width: the choice of the channels that enter the first stage; not among the choices returned.
        reduction: how many times smaller than the image the first stage's input is.
        act: the activation.
    """
    choices, slots = [], []
    for s, stage in enumerate(stages):
        width = Choice(f"stage{s}.width", stage.widths)
        depth = Choice(f"stage{s}.depth", stage.depths)
        kernel = Choice(f"stage{s}.kernel", stage.kernels)
        expand = Choice(f"stage{s}.expand", stage.expands)
        choices += [width, depth, kernel, expand]
        first = _first_block(stage, int(in_width.values[-1]), act)
        slots.append(Slot(f"stages.{s}.0", first, (in_width.name, width.name, kernel.name, expand.name), reduction))
        reduction *= stage.stride
        read = (depth.name, width.name, kernel.name, expand.name)
        blocks = ((b, _later_block(b, stage, act)) for b in range(1, max(stage.depths)))
        slots += [Slot(f"stages.{s}.{b}", block, read, reduction) for b, block in blocks]
        in_width = width
    return choices, slots


def _first_block(stage: UniformStage, max_in: int, act: str) -> Callable[[int, int, int, int], MBConv]:
    def block(in_channels: int, width: int, kernel: int, expand: int) -> MBConv:
        # If the largest network's shortcut needs no weights but others' do, the largest holds them for the others.
        spare = in_channels == width == max_in == stage.widths[-1]
        return MBConv(
            in_channels, width, kernel, stage.stride, expand, stage.se, act, residual=True, spare_shortcut=spare
        )

    return block


def _later_block(b: int, stage: UniformStage, act: str) -> Callable[[int, int, int, int], MBConv | None]:
    def block(depth: int, width: int, kernel: int, expand: int) -> MBConv | None:
        return None if b >= depth else MBConv(width, width, kernel, 1, expand, stage.se, act, residual=True)

    return block
