"""Dropout and stochastic depth of a subnet in training."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from timm.layers import DropPath
from torch import nn
from torch.nn.modules.dropout import _DropoutNd


def has_dropout(network: nn.Module) -> bool:
    """Return whether a network has dropout of positive probability, or stochastic depth."""
    return any(getattr(module, "p", 0) > 0 or isinstance(module, DropPath) for module in network.modules())


@contextmanager
def dropout_mode(network: nn.Module, enabled: bool, drop_path: float) -> Iterator[None]:
    """Switch dropout and stochastic depth of a network on or off for a forward pass, and back again.

    The probability to skip a residual branch rises from 0 at the network's first block to `drop_path` at its last, so
    it follows the depth of the arch.

    Args:
        network: a subnet in training mode.
        enabled: whether anything is dropped.
        drop_path: probability of the last block; 0 leaves the network's own probabilities.
    """
    blocks: dict[str, list[DropPath]] = {}
    layers = [(name, module) for name, module in network.named_modules() if isinstance(module, DropPath | _DropoutNd)]
    before = [(layer, layer.training, getattr(layer, "drop_prob", 0.0)) for _, layer in layers]
    for name, layer in layers:
        layer.train(enabled)
        if isinstance(layer, DropPath):
            blocks.setdefault(name.rpartition(".")[0], []).append(layer)
    if drop_path > 0:
        for i, branches in enumerate(blocks.values()):
            for branch in branches:
                branch.drop_prob = drop_path * i / max(len(blocks) - 1, 1)
    try:
        yield
    finally:
        for layer, training, probability in before:
            layer.train(training)
            if isinstance(layer, DropPath):
                layer.drop_prob = probability
