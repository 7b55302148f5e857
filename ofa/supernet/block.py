"""Blocks: frozen descriptions of a piece of network that can build it as a plain module."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import nn

ChannelGroup = tuple[tuple[str, int], ...]
"""Where a set of hidden channels lies in a block: name and dimension of each parameter or buffer that it runs along,
from the layer that produces the channels to the layers that consume them. Permuting all alike changes no output.
"""


class Block(Protocol):
    """What a slot holds. Implementations are frozen dataclasses: equal fields, equal blocks, one table row.

    A block whose hidden channels can be sorted also has `channel_groups(self) -> tuple[ChannelGroup, ...]`.
    """

    def build(self) -> nn.Module:
        """Make a plain, initialized module that computes this block."""
        ...

    def input_shape(self, size: int) -> tuple[int, ...]:
        """Return the shape of one sample (no batch dimension) that enters the block.

        Args:
            size: height and width of the feature map at the block's input, in pixels.
        """
        ...


def channel_groups(block: Block) -> tuple[ChannelGroup, ...]:
    """Return the groups of hidden channels that a block declares, or none."""
    declared: Callable[[], tuple[ChannelGroup, ...]] = getattr(block, "channel_groups", tuple)
    return declared()


def skeleton(build: Callable[[], nn.Module]) -> nn.Module:
    """Build a module on the meta device, without memory or values; on the CPU if it cannot be built there."""
    try:
        with torch.device("meta"):
            return build()
    except RuntimeError:  # such as values read from tensors while building
        with torch.random.fork_rng(devices=[]):
            return build()
