"""Blocks: frozen descriptions of a piece of a network that build it as a plain module."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, Protocol

import torch
from torch import Tensor, nn

_OF_EVERY_MODULE = vars(nn.Module()).keys()
"""Attributes such as parameters, buffers and hooks."""
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
    """Build a module on the meta device, without memory or values; on the CPU where that is not possible.

    It is not for constructors that read values from tensors, and for modules whose attributes hold tensors that are
    neither parameters nor buffers: nothing would ever give these values.
    """
    with suppress(RuntimeError), torch.device("meta"):
        module = build()
        if not any(map(_is_plain_tensor, _attributes(module))):
            return module
    with torch.random.fork_rng(devices=[]):
        return build()


def _attributes(module: nn.Module) -> Iterator[Any]:
    """Yield what the attributes of a module and those inside it hold, and what lists and the like among them hold."""
    for inner in module.modules():
        for name in vars(inner).keys() - _OF_EVERY_MODULE:
            value = vars(inner)[name]
            yield value
            if isinstance(value, list | tuple):
                yield from value
            elif isinstance(value, dict):
                yield from value.values()


def _is_plain_tensor(value: Any) -> bool:
    return isinstance(value, Tensor) and not isinstance(value, nn.Parameter)
