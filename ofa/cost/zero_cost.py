"""Zero-cost proxies: what untrained networks tell of their accuracy (arXiv 2101.08134)."""

from collections.abc import Callable
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ofa.cost.block_table import BlockTable
from ofa.space.arch import Rows
from ofa.supernet.block import Block
from ofa.supernet.family import Family

_SIDE = 32
"""Largest height and width of a block's input: what is measured hardly depends on it."""


def synflow(family: Family) -> Callable[[Rows], NDArray[np.float64]]:
    """Return the function from rows `[n, n_choices]` to what flows through networks `[n]`, after SynFlow.

    SynFlow (arXiv 2006.05467) sends ones through a network with the absolute values of its weights; in a network of
    linear layers, its score is the sum of the outputs times the number of layers. Here it is the product of how much
    each block alone lets through, so that each block is measured once, and not each arch. LayerNorm, which lets nothing
    of a constant through, is left out.
    """
    log_gains = BlockTable(family, lambda block, size: _log_gain(block, min(size, _SIDE)), name="synflow")
    return lambda rows: np.exp(log_gains(rows))


@lru_cache(maxsize=10_000)
def _log_gain(block: Block, size: int) -> float:
    """Return the logarithm of the mean output of a block for an input of ones, with absolute weights."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        module = _without_layer_norm(block.build().eval())
        for parameter in module.parameters():
            parameter.abs_()
        output = module(torch.ones(1, *block.input_shape(size)))
    return float(np.log(max(float(output.abs().mean()), 1e-9)))


def _without_layer_norm(module: nn.Module) -> nn.Module:
    for name, child in module.named_children():
        if isinstance(child, nn.LayerNorm):
            setattr(module, name, nn.Identity())
        else:
            _without_layer_norm(child)
    return module
