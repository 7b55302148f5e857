"""Blocks: frozen descriptions of a piece of network, each able to build itself as a plain module."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import nn


class Block(Protocol):
    """What a slot holds. Implementations are frozen dataclasses: equal fields, equal blocks, one table row."""

    def build(self) -> nn.Module:
        """A plain, initialized module that computes this block."""
        ...

    def input_shape(self, size: int) -> tuple[int, ...]:
        """The shape of one sample (no batch dimension) that enters the block.

        Args:
            size: height and width of the feature map at the block's input, in pixels.
        """
        ...


def skeleton(build: Callable[[], nn.Module]) -> nn.Module:
    """A module on the meta device, without memory or values; on the CPU if it cannot be built there."""
    try:
        with torch.device("meta"):
            return build()
    except RuntimeError:  # such as values read from tensors while building
        with torch.random.fork_rng(devices=[]):
            return build()
