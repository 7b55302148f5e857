"""Slots: the positions of a network, each with the blocks that it can hold."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import nn

from ofa.supernet.block import Block


@dataclass(frozen=True)
class Slot:
    """A position in the network.

    Attributes:
        path: where the module sits, such as `stages.2.1`; empty for a slot that is the whole network.
        block: maps the values of `choices` to a block, or to None where the layer is skipped.
        choices: names of the choices that `block` reads, in the order of its arguments.
        reduction: image size divided by the size of the feature map at the slot's input.
    """

    path: str
    block: Callable[..., Block | None]
    choices: tuple[str, ...] = ()
    reduction: int = 1

    def size(self, resolution: int) -> int:
        """Return height and width in pixels of the slot's input at an image resolution."""
        return -(-resolution // self.reduction)


def assemble(modules: Mapping[str, nn.Module], training: bool = True) -> nn.Module:
    """Nest the modules of slots by their dotted paths into `nn.Sequential`s that run in the order given.

    Names stay the same where layers are skipped, so that weights match by name. A module with an empty path is the
    whole network and is returned as it is. `training` is the mode of the containers.
    """
    if "" in modules:
        return modules[""]
    network = nn.Sequential()
    network.training = training
    for path, module in modules.items():
        *owners, leaf = path.split(".")
        container = network
        for owner in owners:
            child = container._modules.get(owner)
            if child is None:
                child = container._modules[owner] = nn.Sequential()
                child.training = training
            container = child  # type: ignore[assignment]  # every inner node is a Sequential
        container._modules[leaf] = module
    return network
