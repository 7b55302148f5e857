"""Counted costs: multiply-accumulates and parameters, from the blocks alone.

MACs are half of what torch's flop counter counts (convolutions, linear layers, attention), per image.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from ofa.cost.block_table import BlockTable
from ofa.supernet.block import skeleton
from ofa.supernet.family import Family


def macs_m(family: Family) -> BlockTable:
    """Millions of multiply-accumulates of one forward pass."""
    return BlockTable(
        family, lambda block, size: count_macs(skeleton(block.build).eval(), block.input_shape(size)) / 1e6
    )


def params_m(family: Family) -> BlockTable:
    """Millions of parameters."""
    return BlockTable(family, lambda block, size: sum(p.numel() for p in skeleton(block.build).parameters()) / 1e6)


def count_macs(module: nn.Module, input_shape: tuple[int, ...]) -> int:
    """Multiply-accumulates of a module (in eval mode) for one sample, wherever its parameters are."""
    device = next((p.device for p in module.parameters()), torch.device("meta"))
    frozen = {name: p.detach() for name, p in module.named_parameters()}  # the counter trips over views of trained ones
    plain = sdpa_kernel(SDPBackend.MATH)  # as matrix products: fused attention on CPUs is not counted by every torch
    with FlopCounterMode(display=False) as counter, torch.no_grad(), plain:
        torch.func.functional_call(module, frozen, (torch.empty(1, *input_shape, device=device),))
    return int(counter.get_total_flops()) // 2
