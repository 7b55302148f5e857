"""Weights that must be those of one network: differences are listed in one line."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

from ofa.core.errors import CheckpointError, listed


def load_state_dict(network: nn.Module, tensors: Mapping[str, Tensor], path: Path, advice: str) -> None:
    """Load tensors into a network that has exactly these names and shapes.

    Args:
        network: gets the tensors.
        tensors: by their names in `network.state_dict()`.
        path: where they come from, for the error message.
        advice: what to give instead, for the error message.

    Raises:
        CheckpointError: missing, unknown or wrongly shaped tensors; they are listed.
    """
    present = network.state_dict()
    problems = {
        "missing": [name for name in present if name not in tensors],
        "unknown": [name for name in tensors if name not in present],
        "of another shape": [
            f"{name} {tuple(tensors[name].shape)} instead of {tuple(tensor.shape)}"
            for name, tensor in present.items()
            if name in tensors and tensors[name].shape != tensor.shape
        ],
    }
    if any(problems.values()):
        differences = "; ".join(f"{len(names)} {kind}: {listed(names, 5)}" for kind, names in problems.items() if names)
        raise CheckpointError(f"{path} holds another network ({differences}); give {advice}")
    network.load_state_dict(dict(tensors))
