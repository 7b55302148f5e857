"""Counted costs: multiply-accumulates and parameters, from the blocks alone."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from ofa.cost.block_table import BlockTable
from ofa.supernet.block import Block, skeleton
from ofa.supernet.family import Family


def macs_m(family: Family) -> BlockTable:
    """Return the cost of a forward pass of one image, in millions of multiply-accumulates (see `count_macs`)."""

    def count_macs_m(block: Block, size: int) -> float:
        return count_macs(skeleton(block.build).eval(), block.input_shape(size)) / 1e6

    return BlockTable(family, count_macs_m, name="macs_m", unit="million multiply-accumulates")


def params_m(family: Family) -> BlockTable:
    """Return the cost in millions of parameters."""

    def count_params_m(block: Block, _: int) -> float:
        return sum(p.numel() for p in skeleton(block.build).parameters()) / 1e6

    return BlockTable(family, count_params_m, name="params_m", unit="million parameters")


def count_macs(module: nn.Module, input_shape: tuple[int, ...]) -> int:
    """Count the multiply-accumulates of a module in eval mode for one sample.

    These are half the operations that torch's flop counter counts: convolutions, linear layers and attention. The
    parameters may be on any device, the meta device included.
    """
    device = next((p.device for p in module.parameters()), torch.device("meta"))
    detached = {name: p.detach() for name, p in module.named_parameters()}  # it fails on expanded parameters with gradients
    math_attention = sdpa_kernel(SDPBackend.MATH)  # fused attention on CPUs is not counted by every version of torch
    with FlopCounterMode(display=False) as counter, torch.no_grad(), math_attention:
        torch.func.functional_call(module, detached, (torch.empty(1, *input_shape, device=device),))
    return int(counter.get_total_flops()) // 2
