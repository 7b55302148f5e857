"""Blocks: frozen descriptions of a piece of a network that build it as a plain module."""

from collections.abc import Callable
from typing import Protocol

import torch
from torch import nn

ChannelGroup = tuple[tuple[str, int], ...]
"""A channel group spans the layers from the one that produces hidden channels to the ones that consume them.

It lists the name and the channel dimension of every parameter and BatchNorm buffer that has an entry per channel.
The last entry is the weight of the last consumer. Permuting all entries alike leaves the block's output unchanged.
"""


class Block(Protocol):
    """A slot's piece of a network. Implementations are frozen dataclasses: equal fields mean one latency-table row.

    A block whose hidden channels can be sorted by importance also declares them, in a method
    `channel_groups(self) -> tuple[ChannelGroup, ...]`.
    """

    def __hash__(self) -> int: ...

    def build(self) -> nn.Module:
        """Return a plain, initialized module that computes this block."""
        ...

    def input_shape(self, size: int) -> tuple[int, ...]:
        """Return the shape of one sample, without a batch dimension, of a feature map of `size` by `size` pixels."""
        ...


def channel_groups(block: Block) -> tuple[ChannelGroup, ...]:
    """Return the channel groups that a block declares, or an empty tuple."""
    declare: Callable[[], tuple[ChannelGroup, ...]] = getattr(block, "channel_groups", tuple)
    return declare()


def skeleton(build: Callable[[], nn.Module]) -> nn.Module:
    """Build a module on the meta device, without memory or values; on the CPU where that is not possible."""
    try:
        with torch.device("meta"):
            return build()
    except RuntimeError:  # such as a constructor that reads values from tensors
        with torch.random.fork_rng(devices=[]):
            return build()
