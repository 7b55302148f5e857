"""Files of weights: one format with one key layout, for runs, `Supernet.save` and `train.initial_weights`.

A file is safetensors with the tensors of `Supernet.network.state_dict()` under their names there. Its metadata name the
family: key `family` holds the JSON of its `Origin`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from torch import nn

from ofa.core.errors import CheckpointError
from ofa.core.state_dict import load_state_dict
from ofa.core.tensors import read_state_dict, read_tensors, write_tensors
from ofa.supernet.family import Family, Origin
from ofa.supernet.registry import recreate_family


def save(path: Path, network: nn.Module, family: Family) -> None:
    """Write the weights of a supernet's largest network, and how its family was made if `create_family` made it."""
    metadata = {"format": "ofa-supernet", "version": "1"}
    if family.origin is not None:
        metadata["family"] = json.dumps(asdict(family.origin))
    write_tensors(path, network.state_dict(), metadata)


def read_family(path: Path) -> Family:
    """Create the family that a file of weights names.

    Raises:
        CheckpointError: unreadable, or the file names no family.
        FamilyError: the family is not known here.
    """
    _, metadata = read_tensors(path)
    try:
        origin = Origin(**json.loads(metadata["family"]))
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path} does not say which family it is of; load it with family=...") from error
    return recreate_family(origin)


def load(path: Path, network: nn.Module, new_classifiers: Sequence[str] = ()) -> None:
    """Load weights into a supernet's largest network.

    Args:
        path: a file of weights, or what `torch.save` wrote of a state dict.
        network: gets the weights.
        new_classifiers: paths of layers that keep their weights where the file's have another number of classes.

    Raises:
        CheckpointError: unreadable, or weights of another network; differences are listed.
    """
    tensors, present = read_state_dict(path), network.state_dict()
    if all(name.startswith("network.") for name in tensors):  # the state dict of a Supernet
        tensors = {name.removeprefix("network."): tensor for name, tensor in tensors.items()}
    for name in present:
        if name.rpartition(".")[0] in new_classifiers and name in tensors and len(tensors[name]) != len(present[name]):
            tensors[name] = present[name]
    load_state_dict(network, tensors, path, "weights and family options that belong together")
