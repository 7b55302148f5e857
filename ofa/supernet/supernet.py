"""The supernet: one ordinary network, the largest; the parameters of every subnet are views into it."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

from ofa.core.errors import CheckpointError
from ofa.core.files import parse_json
from ofa.core.tensors import load_state_dict, read_state_dict, read_tensors, write_tensors
from ofa.space.arch import Rows, Value
from ofa.supernet.block import skeleton
from ofa.supernet.family import Family, Origin
from ofa.supernet.registry import recreate_family
from ofa.supernet.sharing import add_extras, bind
from ofa.supernet.slot import assemble
from ofa.supernet.views import ViewPool


class Supernet(nn.Module):
    """Holds the largest network of a family and hands out subnets that share its weights.

    Gradients of a subnet are views into the largest network's, so a training step is: `zero_grad()`, any number of
    subnet forward and backward passes, one `optimizer.step()` over `parameters()`. Use this class's `zero_grad`, or the
    optimizer's with `set_to_none=False`, which leave the shared gradient buffers where they are. Call `subnet` again
    after the optimizer's own `zero_grad()`; a subnet kept from before is detached.

    The seed initializes the weights; the global generator is left as it was.
    """

    def __init__(self, family: Family, seed: int = 0) -> None:
        super().__init__()
        self.family = family
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.network = family.build(family.space.largest)
        add_extras(self.network, family.rules)
        self._views = ViewPool(self.network, family.rules)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_views"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[no-untyped-call]  # torch's is not typed
        self._views = ViewPool(self.network, self.family.rules)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits `[batch, classes]` of the largest network."""
        logits: Tensor = self.network(images)
        return logits

    def zero_grad(self, set_to_none: bool = False) -> None:
        """Zero the shared gradients in place (the default here, as subnets hold views of them)."""
        super().zero_grad(set_to_none)

    def subnet(self, arch: Mapping[str, Value] | Rows) -> nn.Module:
        """Return the network of an arch as an ordinary module whose parameters, gradients and buffers are views.

        It starts in the supernet's mode (`train()` or `eval()`). Two subnets held at the same time share tensors and
        nothing else. Freeze parameters on the supernet, not on a subnet. An arch has a value for each active choice, or
        is a row `[n_choices]`.

        Raises:
            SpaceError: the arch is not of this family's space.
        """
        self._views.drop_stale()
        blocks = self.family.blocks_by_path(arch)
        modules = {path: self._views.module(path, block, self.training) for path, block in blocks.items()}
        return assemble(modules, self.training)

    def extract(self, arch: Mapping[str, Value] | Rows) -> nn.Module:
        """Return a static copy of a subnet with its own weights, free of any sharing; for the arch see `subnet`.

        A network with BatchNorm needs its statistics re-estimated before use: see `ofa.calibrate`.

        Raises:
            SpaceError: the arch is not of this family's space.
        """
        subnet = self.subnet(arch)
        blocks = self.family.blocks_by_path(arch)
        static = assemble({path: skeleton(block.build) for path, block in blocks.items()})
        copies: dict[nn.Parameter, nn.Parameter] = {}
        with torch.no_grad():
            for name, parameter in list(static.named_parameters(remove_duplicate=False)):
                owner, _, leaf = name.rpartition(".")
                if parameter not in copies:
                    value = getattr(subnet.get_submodule(owner), leaf)  # parametrizations are computed once for all
                    copies[parameter] = nn.Parameter(_copy(value), self.network.get_parameter(name).requires_grad)
                bind(static, name, copies[parameter])
            for name, buffer in subnet.named_buffers():
                bind(static, name, _copy(buffer))
        return static.train(self.training)

    def save(self, path: str | Path) -> None:
        """Write the weights as safetensors, whole or not at all: a run's `supernet.safetensors`.

        Names are those of `network.state_dict()`. Metadata `family` is the JSON of the family's `Origin`, if any.
        """
        metadata = {"format": "ofa-supernet", "version": "1"}
        if self.family.origin is not None:
            metadata["family"] = json.dumps(asdict(self.family.origin))
        write_tensors(Path(path), self.network.state_dict(), metadata)

    @classmethod
    def load(cls, path: str | Path, family: Family | None = None) -> Self:
        """Read a supernet that `save` or a training run wrote; by default, its family is created as the file says.

        Raises:
            CheckpointError: unreadable, weights of another network, or a file that does not name its family.
            FamilyError: the family that the file names is not known here.
        """
        if family is None:
            _, metadata = read_tensors(Path(path))
            try:
                family = recreate_family(Origin(**parse_json(metadata["family"])))
            except (KeyError, TypeError, ValueError) as error:
                raise CheckpointError(f"{path} does not say which family it is of; load it with family=...") from error
        supernet = cls(family)
        supernet.load_weights(path)
        return supernet

    def load_weights(self, path: str | Path, *, new_classifier: bool = False) -> None:
        """Load weights from any checkpoint of this network: `save`'s, or what `torch.save` wrote of a state dict.

        Nothing in the file is executed. With `new_classifier`, the present classifier is kept where the file's has
        another number of classes.

        Raises:
            CheckpointError: unreadable, or weights of another network; differences are listed.
        """
        tensors, present = read_state_dict(Path(path)), self.network.state_dict()
        if all(name.startswith("network.") for name in tensors):  # the state dict of a Supernet
            tensors = {name.removeprefix("network."): tensor for name, tensor in tensors.items()}
        for name, tensor in present.items() if new_classifier else ():
            if name.rpartition(".")[0] in self.family.classifiers and name in tensors:
                tensors[name] = tensors[name] if len(tensors[name]) == len(tensor) else tensor
        load_state_dict(self.network, tensors, Path(path), "weights and family options that belong together")


def _copy(tensor: Tensor) -> Tensor:
    return tensor.detach().clone(memory_format=torch.contiguous_format)
