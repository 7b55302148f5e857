"""Families: a list of slots, the space they span, and how they become a network.

Families reach the engine through the entry-point group `ofa.supernets`, or as a path to a Python file;
either way a family is a function `family(num_classes, in_channels, ...) -> Family`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ofa.supernet.block import Block


@dataclass(frozen=True)
class Slot:
    """A position in the network.

    Attributes:
        path: where the module sits, such as `stages.2.1`; empty for a slot that is the whole network.
        block: maps the values of `choices` to a block, or to None where the layer is skipped.
        choices: names of the choices that `block` reads, in the order of its arguments.
        reduction: how many times smaller than the input image the feature map at the slot's input is.
    """

    path: str
    block: Callable[..., Block | None]
    choices: tuple[str, ...] = ()
    reduction: int = 1

    def size(self, resolution: int) -> int:
        """Height and width in pixels of the slot's input at an image resolution."""
        return -(-resolution // self.reduction)
