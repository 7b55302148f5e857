"""Tensors in files, safetensors or of `torch.save`, and in networks that they must fit; reading executes no code."""

import json
import pickletools
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections import Counter
from collections.abc import Mapping
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from ofa.core.errors import CheckpointError, listed
from ofa.core.files import replacing

_STATE_DICTS = ("state_dict_ema", "model_ema", "state_dict", "model")
"""Keys of training checkpoints under which a network's tensors are; the first one present is read, as in timm."""


def write_tensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str] | None = None) -> None:
    """Write tensors of any device and memory layout as one safetensors file, whole or not at all."""
    flat, written = dict[str, Tensor](), set[int]()
    for name, tensor in tensors.items():
        flat[name] = tensor.detach().contiguous().cpu()
        address = flat[name].untyped_storage().data_ptr()
        if address in written:  # a file holds tied parameters once for each name
            flat[name] = flat[name].clone()
        written.add(address)
    with replacing(path) as temporary:
        try:
            save_file(flat, temporary, metadata)
        except SafetensorError as error:
            raise OSError(f"cannot write {path}: {error}") from error
        _sort_metadata(temporary)


def _sort_metadata(path: Path) -> None:
    """Sort the metadata in a safetensors file, whose order is random, so that equal tensors give equal files."""
    with path.open("r+b") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
        metadata = header.pop("__metadata__", {})
        ordered = {"__metadata__": dict(sorted(metadata.items()))} | header if metadata else header
        file.seek(8)
        file.write(json.dumps(ordered, separators=(",", ":"), ensure_ascii=False).encode().ljust(length))


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the tensors and metadata of a safetensors file; CheckpointError if it is missing, truncated or another."""
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path} is missing, truncated or not a safetensors file ({error})") from error


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Read a network's tensors by name from a safetensors file or a file of `torch.save`.

    Of a training checkpoint, the first state dict under `state_dict_ema`, `model_ema`, `state_dict` or `model` is read,
    and the rest is ignored. The `module.` and `_orig_mod.` that wrappers add to names are removed. No class or function
    that the file names is imported or called; inert placeholders take their place.

    Raises:
        CheckpointError: the file is missing, truncated, holds no state dict, or holds objects that cannot be skipped.
    """
    content: Any = read_tensors(path)[0] if path.suffix == ".safetensors" else _load(path)
    if isinstance(content, dict):
        nested = (content[key] for key in _STATE_DICTS if isinstance(content.get(key), dict) and content[key])
        content = next(nested, content)
    items = content.items() if isinstance(content, dict) else ()
    if not items or not all(isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in items):
        raise CheckpointError(f"{path} holds no state dict (tensors by name); save model.state_dict() with torch.save")
    names = [".".join(part for part in name.split(".") if part != "_orig_mod") for name in content]
    if all(name.startswith("module.") for name in names):
        names = [name.removeprefix("module.") for name in names]
    return {name: tensor.detach() for name, tensor in zip(names, content.values(), strict=True)}


def load_state_dict(network: nn.Module, tensors: Mapping[str, Tensor], path: Path, advice: str) -> None:
    """Load tensors, by their names in `network.state_dict()`, into a network that has exactly these names and shapes.

    Otherwise a CheckpointError lists the missing, unknown and wrongly shaped tensors of `path`, and ends with advice.
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


class _Inert:
    """A placeholder for any class or function: calling it and setting its state do nothing."""

    def __init__(self, *_: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass


class _InertMapping:
    """A placeholder that makes empty Counters, which torch's unpickler lets have items and attributes."""

    def __new__(cls, *_: object) -> Counter[Any]:  # type: ignore[misc]  # no instance of this class
        return Counter()


def _load(path: Path) -> Any:
    """Load a file of `torch.save` with torch's restricted unpickler, which calls only what rebuilds tensors."""
    names: list[str] = []
    try:
        names = sorted(_global_names(path))
        tuples = ("numpy.", "functools.")  # whose objects have tuples as their states; others have dictionaries
        placeholders: list[Any] = [(_Inert if name.startswith(tuples) else _InertMapping, name) for name in names]
        with torch.serialization.safe_globals(placeholders):
            return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise CheckpointError(f"no checkpoint {path}; give the path of a downloaded file") from error
    except Exception as error:  # unpickling raises all kinds
        foreign = ", ".join(name for name in names if not name.startswith("torch."))
        if foreign and not isinstance(error, RuntimeError | EOFError | OSError):
            raise CheckpointError(
                f"{path} holds objects that cannot be skipped without running code (it refers to {foreign}); save the "
                "network's state dict alone"
            ) from error
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise CheckpointError(f"{path} is truncated or not a checkpoint ({reason})") from error


def _global_names(path: Path) -> set[str]:
    """Return the dotted names of the classes and functions that the pickles in a file refer to, without loading them.

    Torch's legacy format is four pickles and raw data: magic number, protocol, system information, and the object.
    """
    names = set()
    with path.open("rb") as file:
        if file.read(4) == b"PK\x03\x04":  # a zip file, as torch recognizes it
            return set(torch.serialization.get_unsafe_globals_in_checkpoint(path))
        file.seek(0)
        for opcode, argument, _ in chain.from_iterable(pickletools.genops(file) for _ in range(4)):
            if opcode.name == "GLOBAL":
                module, name = str(argument).split(" ")
                current = NAME_MAPPING.get((module, name), (IMPORT_MAPPING.get(module, module), name))
                names |= {f"{module}.{name}", ".".join(current)}  # torch translates some of Python 2's names
    return names
