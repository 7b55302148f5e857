"""Tensors in files: safetensors, written whole or not at all, and what `torch.save` wrote; reading executes no code."""

from __future__ import annotations

import pickle
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ofa.core.errors import CheckpointError
from ofa.core.files import replacing


def write_tensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str] | None = None) -> None:
    """Writes tensors (any device and layout) as one safetensors file.

    Raises:
        OSError: the disk is full or the folder cannot be written.
    """
    flat = {name: tensor.detach().contiguous().cpu() for name, tensor in tensors.items()}
    with replacing(path) as temporary:
        try:
            save_file(flat, temporary, metadata)
        except SafetensorError as error:
            raise OSError(f"cannot write {path}: {error}") from error


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Reads tensors and metadata.

    Raises:
        CheckpointError: missing, truncated, or not a safetensors file.
    """
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path} is missing, truncated or not a safetensors file ({error})") from error


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Reads a network's tensors by name from a safetensors file, or what `torch.save` wrote.

    They may be wrapped as `state_dict` or `model`, and their names begin with `module.`.

    Raises:
        CheckpointError: missing, truncated, no state_dict, or more than tensors, which could execute code.
    """
    if path.suffix == ".safetensors":
        return read_tensors(path)[0]
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise CheckpointError(f"no checkpoint {path}; give the path of a downloaded file") from error
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path} holds more than tensors and was not loaded, as it could run code; save its state_dict alone "
            f"({_first_line(error)})"
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError) as error:
        raise CheckpointError(f"{path} is truncated or not a checkpoint ({_first_line(error)})") from error
    for key in ("state_dict", "model"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict) or not all(
        isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in content.items()
    ):
        raise CheckpointError(f"{path} holds no state_dict (names and tensors); save one with torch.save")
    return {name.removeprefix("module."): tensor for name, tensor in content.items()}


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
