"""Checkpoints: one safetensors file each, written whole or not at all; loading one executes no code.

Tensors have dotted names; everything else is JSON under the metadata key `state`.
"""

import json
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ofa.core.errors import CheckpointError
from ofa.core.files import parse_json
from ofa.core.tensors import read_tensors, write_tensors


def save(path: Path, tensors: dict[str, Tensor], state: dict[str, Any]) -> None:
    """Write tensors (any device and layout) and a JSON state."""
    write_tensors(path, tensors, {"state": json.dumps(state)})


def load(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what `save` wrote.

    Raises:
        CheckpointError: missing, truncated, or not such a file.
    """
    tensors, metadata = read_tensors(path)
    try:
        return tensors, parse_json(metadata["state"])
    except (KeyError, ValueError) as error:
        raise CheckpointError(f"{path} is not a checkpoint ({error!r})") from error


def pack_optimizer(optimizer: torch.optim.Optimizer) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return an optimizer's state as named tensors and JSON."""
    state = optimizer.state_dict()
    values = {f"{i}.{key}": value for i, entries in state["state"].items() for key, value in entries.items()}
    groups = {f"group{i}.{key}": value for i, group in enumerate(state["param_groups"]) for key, value in group.items()}
    tensors = {name: value for name, value in (values | groups).items() if isinstance(value, Tensor)}
    plain = {name: value for name, value in values.items() if name not in tensors}
    param_groups = [
        {key: value for key, value in group.items() if not isinstance(value, Tensor)} for group in state["param_groups"]
    ]
    return tensors, {"plain": plain, "param_groups": param_groups}


def unpack_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor], state: dict[str, Any]) -> None:
    """Restore what `pack_optimizer` returned."""
    entries: dict[int, dict[str, Any]] = {}
    param_groups = [dict(group) for group in state["param_groups"]]
    for name, value in (state["plain"] | tensors).items():
        index, _, key = name.partition(".")
        if index.startswith("group"):
            param_groups[int(index.removeprefix("group"))][key] = value
        else:
            entries.setdefault(int(index), {})[key] = value
    optimizer.load_state_dict({"state": entries, "param_groups": param_groups})


class Checkpoints:
    """The newest checkpoints of a training, `step-00000123.safetensors`, in one folder."""

    def __init__(self, folder: Path, keep: int = 2) -> None:
        self.folder, self.keep = folder, keep

    def paths(self) -> list[Path]:
        """Return the checkpoint files, newest first."""
        return sorted(self.folder.glob("step-*.safetensors"), reverse=True)

    def save(self, step: int, tensors: dict[str, Tensor], state: dict[str, Any]) -> None:
        """Add a checkpoint, then remove all but the newest."""
        self.folder.mkdir(parents=True, exist_ok=True)
        save(self.folder / f"step-{step:08d}.safetensors", tensors, state)
        for old in self.paths()[self.keep :]:
            old.unlink()

    def load(self) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """Read tensors and state of the newest intact checkpoint, warning of newer ones; None if there is none at all.

        Raises:
            CheckpointError: there are checkpoints, and none is intact.
        """
        broken: list[str] = []
        for path in self.paths():
            try:
                tensors, state = load(path)
            except CheckpointError as error:
                broken.append(str(error))
                continue
            for message in broken:
                warnings.warn(f"{message}; resuming from step {state['step']}", stacklevel=2)
            return tensors, state
        if broken:
            raise CheckpointError(
                f"no checkpoint in {self.folder} can be read: {broken[0]}; remove the folder to start the training over"
            )
        return None
