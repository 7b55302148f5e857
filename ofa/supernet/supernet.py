"""The supernet: one ordinary network, the largest; every subnet's parameters are views into it."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ofa.space.arch import Value
from ofa.supernet.block import Block, skeleton
from ofa.supernet.family import Family, assemble
from ofa.supernet.sharing import add_extras, bind, share, shared_buffers

_MAX_KEPT = 200_000
"""Tensors in kept blocks; the block that was used the longest ago is dropped first."""


class Supernet(nn.Module):
    """Holds the largest network of a family and hands out subnets that share its weights.

    Gradients that a subnet leaves are views into the largest network's, so a step is: `zero_grad()`,
    any number of subnet forward and backward passes, one `optimizer.step()` over `parameters()`.
    Use this class's `zero_grad`, or the optimizer's with `set_to_none=False`, so that the shared gradient
    buffers stay where they are while subnets are in use.

    Args:
        family: which slots and blocks.
        seed: initializes the weights; the global generator is left as it was.
    """

    def __init__(self, family: Family, seed: int = 0) -> None:
        super().__init__()
        self.family = family
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.network = family.build(family.space.largest)
        add_extras(self.network, family.rules)
        self._kept: dict[tuple[str, Block], tuple[nn.Module, list[nn.Parameter]]] = {}
        self._n_kept = 0
        modules = list(self.network.modules())
        stores = [m._parameters for m in modules] + [m._buffers for m in modules]
        self._tensors = [(store, name) for store in stores for name, tensor in store.items() if tensor is not None]
        self._pointers: list[tuple[int, int, bool]] = []

    def forward(self, images: Tensor) -> Tensor:
        """Logits `[batch, classes]` of the largest network."""
        logits: Tensor = self.network(images)
        return logits

    @property
    def classifier_names(self) -> tuple[str, ...]:
        """The names of the last layer's weight and bias in `network`, which depend on the number of classes."""
        return tuple(self.network.state_dict())[-2:]

    def zero_grad(self, set_to_none: bool = False) -> None:
        """Zeroes the shared gradients in place (the default here, as subnets hold views of them)."""
        super().zero_grad(set_to_none)

    def subnet(self, arch: Mapping[str, Value]) -> nn.Module:
        """The network of an arch as an ordinary module whose parameters, gradients and buffers are views.

        Blocks are kept and reused, also between subnets; each call puts the blocks it uses in the
        supernet's own mode (`train()` or `eval()`). Asking again is cheap, holding on is risky: zero gradients
        and freeze parameters on the supernet, not on a subnet, whose views would be detached.

        Args:
            arch: a complete assignment; see `SearchSpace.arch`.

        Raises:
            SpaceError: the arch is not of this family's space.
        """
        self._drop_stale_views()
        pairs = self.family.blocks(self.family.space.encode(arch))
        modules = {slot.path: self._module(slot.path, block) for slot, block in pairs if block is not None}
        for module in modules.values():
            if module.training != self.training:
                module.train(self.training)
        return assemble(modules, self.training)

    def extract(self, arch: Mapping[str, Value]) -> nn.Module:
        """A static copy of a subnet with weights of its own, free of any sharing.

        Args:
            arch: a complete assignment; see `SearchSpace.arch`.

        Raises:
            SpaceError: the arch is not of this family's space.
        """
        subnet = self.subnet(arch)
        pairs = self.family.blocks(self.family.space.encode(arch))
        static = assemble({slot.path: skeleton(block.build) for slot, block in pairs if block is not None})
        own: dict[nn.Parameter, nn.Parameter] = {}
        with torch.no_grad():
            for name, parameter in list(static.named_parameters(remove_duplicate=False)):
                owner, _, leaf = name.rpartition(".")
                if parameter not in own:
                    value = getattr(subnet.get_submodule(owner), leaf)  # what rules compute is computed once for all
                    own[parameter] = nn.Parameter(_own(value), self.network.get_parameter(name).requires_grad)
                bind(static, name, own[parameter])
            for name, buffer in subnet.named_buffers():
                bind(static, name, _own(buffer))
        return static.train(self.training)

    def _module(self, path: str, block: Block) -> nn.Module:
        module, views = self._kept.pop((path, block), (None, []))
        if module is None or any(view.grad is None and view.requires_grad for view in views):
            largest = self.network.get_submodule(path)
            module = skeleton(block.build)
            if len(shared_buffers(module)) < len(list(module.buffers())):
                device = next(largest.parameters()).device
                with torch.random.fork_rng(devices=[]), torch.device(device):
                    module = block.build()  # for the values of buffers of its own
            share(module, largest, path, self.family.rules)
            self._n_kept -= len(views)
            views = list(module.parameters())
            self._n_kept += len(views)
        self._kept[path, block] = module, views  # the last one used is the last one kept
        while self._n_kept > _MAX_KEPT and len(self._kept) > 1:
            _, dropped = self._kept.pop(next(iter(self._kept)))
            self._n_kept -= len(dropped)
        return module

    def _drop_stale_views(self) -> None:
        """Forgets the kept blocks if a tensor they view was replaced (`.to()`, loading, no gradients) or frozen."""
        pointers = []
        for tensors, name in self._tensors:
            tensor = tensors[name]
            assert tensor is not None
            if tensor.requires_grad and tensor.grad is None:
                tensor.grad = torch.zeros_like(tensor)
            gradient = 0 if tensor.grad is None else tensor.grad.data_ptr()
            pointers.append((tensor.data_ptr(), gradient, tensor.requires_grad))
        if pointers != self._pointers:  # the views keep the old memory alive, so an address is never used anew
            self._kept.clear()
            self._n_kept = 0
            self._pointers = pointers


def _own(tensor: Tensor) -> Tensor:
    return tensor.detach().clone(memory_format=torch.contiguous_format)
