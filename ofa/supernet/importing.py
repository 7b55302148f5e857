"""Checkpoints of other projects, loaded into a supernet of the same network.

A source is a module of the entry-point group `ofa.checkpoints` that knows the names of one project; see `Source`.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from ofa.core.errors import CheckpointError
from ofa.core.plugins import load_plugin
from ofa.core.tensors import load_state_dict, read_state_dict
from ofa.space.arch import Arch
from ofa.supernet.family import Family
from ofa.supernet.rules import nested_view
from ofa.supernet.supernet import Supernet

_GROUP = "ofa.checkpoints"


class Source(Protocol):
    """One project's names of parameters and descriptions of archs; raises CheckpointError for unknown families."""

    LEADING_SLICES: bool
    """Whether the project's tensors may be larger than those of a family's largest network, which then takes their
    leading slices; only the number of classes must match."""

    def names(self, family: Family) -> dict[str, str]:
        """Return the project's canonical name for each name in `Supernet(family).network.state_dict()`."""
        ...

    def canonical(self, name: str) -> str:
        """Return a tensor's name in a form that all releases of the project share."""
        ...

    def arch(self, family: Family, description: Mapping[str, Any]) -> Arch:
        """Return the arch of the project's description of a subnet."""
        ...


def source(name: str) -> Source:
    """Return a project by name; raises CheckpointError if there is no such project."""
    project: Source = load_plugin(_GROUP, name, "source of checkpoints", CheckpointError)
    return project


def import_checkpoint(source_name: str, path: str | Path, family: Family) -> Supernet:
    """Return a supernet with the weights of another project's checkpoint, a safetensors file or one of `torch.save`.

    The family must have the options of the checkpoint, such as `width_mult` and `num_classes`.

    Raises:
        CheckpointError: the file cannot be read; or tensors are missing, unknown or of another shape, which are listed.
    """
    project, supernet = source(source_name), Supernet(family)
    targets = supernet.network.state_dict()
    own_names = {theirs: own for own, theirs in project.names(family).items()}
    tensors = {}
    for name, tensor in read_state_dict(Path(path)).items():
        own_name = own_names.get(project.canonical(name), name)
        if (target := targets.get(own_name)) is not None:
            first = int(own_name.rpartition(".")[0] in family.classifiers)  # the number of classes is dimension 0
            tensor = _fit(tensor, target.shape, range(first, tensor.dim()) if project.LEADING_SLICES else range(0))
        tensors[own_name] = tensor
    advice = f"{family.name} the options that the checkpoint was trained with"
    load_state_dict(supernet.network, tensors, Path(path), advice)
    return supernet


def _fit(tensor: Tensor, shape: tuple[int, ...], sliced: range) -> Tensor:
    """Return a tensor reshaped by dimensions of one, or its leading part along `sliced`; unchanged if neither fits."""
    if [n for n in tensor.shape if n != 1] == [n for n in shape if n != 1]:
        return tensor.reshape(shape)
    fits = tensor.dim() == len(shape) and all(
        small == large or (dim in sliced and small < large)
        for dim, (small, large) in enumerate(zip(shape, tensor.shape, strict=True))
    )
    return nested_view(tensor, shape, "") if fits else tensor
