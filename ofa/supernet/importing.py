"""Checkpoints of other projects, loaded into a supernet of the same network.

A source is a module of the entry-point group `ofa.checkpoints` that knows one project's names; see `Source`.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from ofa.core.errors import CheckpointError
from ofa.core.tensors import read_state_dict
from ofa.space.arch import Arch
from ofa.supernet.family import Family
from ofa.supernet.rules import nested_view
from ofa.supernet.supernet import Supernet


class Source(Protocol):
    """What a project calls the parameters and the archs of a family.

    Attributes:
        CUT: whether its tensors may be larger than the family's largest network, which then takes their leading slices.
    """

    CUT: bool

    def names(self, family: Family) -> dict[str, str]:
        """From names in `Supernet(family).network.state_dict()` to the project's.

        Raises:
            CheckpointError: the project has no such family.
        """
        ...

    def canonical(self, name: str) -> str:
        """A tensor's name in a form that all releases of the project share."""
        ...

    def arch(self, family: Family, description: Mapping[str, Any]) -> Arch:
        """The arch that the project's own description of a subnet means."""
        ...


def source_names() -> list[str]:
    """The projects whose checkpoints can be imported, sorted."""
    return sorted(entry_points(group="ofa.checkpoints").names)


def source(name: str) -> Source:
    """A project by name.

    Raises:
        CheckpointError: no such project.
    """
    found = entry_points(group="ofa.checkpoints", name=name)
    if not found:
        raise CheckpointError(f"unknown source {name!r}; checkpoints can be imported from {', '.join(source_names())}")
    loaded: Source = next(iter(found)).load()
    return loaded


def import_checkpoint(source_name: str, path: str | Path, family: Family) -> Supernet:
    """A supernet with the weights of another project's checkpoint.

    Args:
        source_name: the project, such as `once-for-all`; see `source_names`.
        path: a file of `torch.save` or safetensors, read without executing anything in it.
        family: made with the options of the checkpoint, such as `width_mult` and `num_classes`.

    Raises:
        CheckpointError: unreadable, or with missing, unknown or wrongly shaped tensors; they are listed.
    """
    project, path = source(source_name), Path(path)
    theirs = {project.canonical(name): tensor for name, tensor in read_state_dict(path).items()}
    supernet = Supernet(family)
    ours = supernet.network.state_dict()
    names = {name: project.canonical(their) for name, their in project.names(family).items()}
    missing = [name for name in names.values() if name not in theirs]
    unknown = sorted(set(theirs) - set(names.values()))
    classifier = {f"{path}.{leaf}" for path in family.classifiers for leaf in ("weight", "bias")}
    wrong = []
    for name, tensor in ours.items():
        if names.get(name) in theirs:
            found = theirs[names[name]]
            fitted = _fit(found, tuple(tensor.shape), project.CUT and name not in classifier)
            if fitted is None:
                wrong.append(f"{names[name]} {tuple(found.shape)} for {tuple(tensor.shape)}")
            else:
                tensor.copy_(fitted)
    problems = {"missing": missing, "unknown": unknown, "of another shape": wrong}
    if any(problems.values()):
        said = "; ".join(f"{len(found)} {what}: {_some(found)}" for what, found in problems.items() if found)
        raise CheckpointError(f"{path} is not a checkpoint of {family.name} with these options ({said})")
    return supernet


def _fit(tensor: Tensor, shape: tuple[int, ...], cut: bool) -> Tensor | None:
    """The tensor in a shape that differs from its own only by dimensions of one, or is cut out of it."""
    if [n for n in tensor.shape if n != 1] == [n for n in shape if n != 1]:
        return tensor.reshape(shape)
    nests = tensor.dim() == len(shape) and all(small <= large for small, large in zip(shape, tensor.shape, strict=True))
    return nested_view(tensor, shape, "") if cut and nests else None


def _some(names: list[str], limit: int = 5) -> str:
    return ", ".join(names[:limit]) + (", ..." if len(names) > limit else "")
