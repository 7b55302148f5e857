"""Stages of elastic depth, for any blocks and for inverted residuals."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType

from ofa import Choice, Slot
from ofa.space.arch import Value
from ofa.supernet.block import Block
from supernets.blocks.convolutions import MBConv


def stage_blocks(
    depth: Choice,
    blocks: Sequence[Callable[..., Block]],
    *,
    stage: int | None = None,
    shared: Sequence[Choice] = (),
    own: Mapping[str, Sequence[Value]] = MappingProxyType({}),
    in_width: Choice | None = None,
    reduction: int,
    stride: int = 1,
) -> tuple[list[Choice], list[Slot]]:
    """Return the blocks' own choices and the slots of a stage, of which smaller networks keep the first blocks.

    Args:
        depth: choice of the number of blocks.
        blocks: for each position, a function from the values of the choices that the block reads to the block.
        stage: number of the stage, for names such as `stage2.block0.kernel`; None for `block0.kernel`.
        shared: choices that every block reads.
        own: names and values of the choices that each block has for itself, read after the shared ones.
        in_width: choice of the stage's input channels, if the first block reads it before the others.
        reduction: ratio of the image's size to the size of the stage's input.
        stride: stride of the first block.
    """
    prefix, path = ("", "blocks") if stage is None else (f"stage{stage}.", f"stages.{stage}")
    choices, slots = [], []
    for b, block in enumerate(blocks):
        values_by_name = {f"{prefix}block{b}.{name}": tuple(values) for name, values in own.items()}
        block_choices = [Choice(name, values, depth.needs_for(b)) for name, values in values_by_name.items()]
        first, build = (depth, partial(_within_depth, b, block)) if b or in_width is None else (in_width, block)
        reads = tuple(choice.name for choice in (first, *shared, *block_choices))
        slots.append(Slot(f"{path}.{b}", build, reads, reduction if b == 0 else reduction * stride))
        choices += block_choices
    return choices, slots


def _within_depth(b: int, block: Callable[..., Block], depth: int, *values: Value) -> Block | None:
    return block(*values) if b < depth else None


@dataclass(frozen=True)
class Stage:
    """The fixed part of a stage of inverted residuals.

    Attributes:
        out_channels: channels of every block's output.
        stride: stride of the first block.
        act: activation.
        se: whether blocks have squeeze-and-excite.
        depths: allowed numbers of blocks, if they are not those of the other stages.
    """

    out_channels: int
    stride: int
    act: str
    se: bool
    depths: tuple[int, ...] | None = None


def mbconv_stages(
    stages: Sequence[Stage],
    *,
    in_channels: int,
    reduction: int,
    depths: Sequence[int],
    kernels: Sequence[int],
    expands: Sequence[int],
    norm_eps: float = 1e-5,
) -> tuple[list[Choice], list[Slot]]:
    """Return the choices and slots of stages in which every inverted residual has its own kernel and expansion.

    Args:
        stages: in the order of the data flow.
        in_channels: input channels of the first stage.
        reduction: ratio of the image's size to the size of the first stage's input.
        depths: allowed numbers of blocks per stage.
        kernels: allowed sizes of depthwise kernels.
        expands: allowed ratios of hidden to input channels.
        norm_eps: BatchNorm's epsilon.
    """
    choices, slots, own = [], [], {"kernel": kernels, "expand": expands}
    for s, stage in enumerate(stages):
        depth = Choice(f"stage{s}.depth", tuple(stage.depths or depths))
        first = partial(_mbconv, stage, norm_eps, in_channels, stage.stride)
        later = partial(_mbconv, stage, norm_eps, stage.out_channels, 1)
        blocks = [first, *[later] * (int(depth.values[-1]) - 1)]
        block_choices, block_slots = stage_blocks(
            depth, blocks, stage=s, own=own, reduction=reduction, stride=stage.stride
        )
        choices += [depth, *block_choices]
        slots += block_slots
        reduction, in_channels = reduction * stage.stride, stage.out_channels
    return choices, slots


def _mbconv(stage: Stage, norm_eps: float, in_channels: int, stride: int, kernel: int, expand: int) -> MBConv:
    residual = stride == 1 and in_channels == stage.out_channels
    return MBConv(in_channels, stage.out_channels, kernel, stride, expand, stage.se, stage.act, residual, norm_eps)
