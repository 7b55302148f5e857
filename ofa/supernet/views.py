"""Modules whose parameters, gradients and buffers are views into the largest network."""

import sys
from collections.abc import Mapping

import torch
from torch import nn

from ofa.supernet.block import Block, skeleton
from ofa.supernet.rules import Rule
from ofa.supernet.sharing import share, shared_buffers

_MAX_TENSORS = 200_000
"""Number of parameters in all modules of a pool; beyond it, the modules that were used least recently are dropped."""
_POOL_REFERENCES = 2
"""References to a module that nobody but the pool holds: the pool's own, and the argument of `getrefcount`."""


class ViewPool:
    """Hands out modules that share the largest network's tensors and nothing else.

    Building a module and its views takes milliseconds, so a module that nobody holds any more is handed out again,
    unless hooks were added to it or its parameters were frozen. Modules are dropped when a tensor that they view is
    replaced (`.to()`, loading, gradients set to None) or frozen.
    """

    def __init__(self, network: nn.Module, rules: Mapping[str, Rule]) -> None:
        self._network, self._rules = network, rules
        self._pool: dict[tuple[str, Block], list[_View]] = {}  # the least recently used first
        stores = [store for module in network.modules() for store in (module._parameters, module._buffers)]
        self._tensors = [(store, name) for store in stores for name, tensor in store.items() if tensor is not None]
        self._state: list[tuple[int, int, bool]] = []

    def module(self, path: str, block: Block, training: bool) -> nn.Module:
        """Return the module of a block at a slot's path, in the given mode and held by nobody else."""
        views = self._pool.pop((path, block), [])
        self._pool[path, block] = views
        view = next((view for view in views if view.is_free()), None)
        if view is not None and not view.is_untouched():
            views.remove(view)
            view = None
        if view is None:
            view = _View(self._build(path, block))
            views.append(view)
            self._drop_least_recent()
        view.set_mode(training)
        return view.module

    def drop_stale(self) -> None:
        """Forget all modules if a tensor of the largest network was replaced or frozen; allocate missing gradients."""
        state = []
        for store, name in self._tensors:
            tensor = store[name]
            assert tensor is not None
            if tensor.requires_grad and tensor.grad is None:
                tensor.grad = torch.zeros_like(tensor)
            gradient = 0 if tensor.grad is None else tensor.grad.data_ptr()
            state.append((tensor.data_ptr(), gradient, tensor.requires_grad))
        if state != self._state:  # views keep the old memory alive, so an address is never used again
            self._pool.clear()
            self._state = state

    def _drop_least_recent(self) -> None:
        n_tensors = {key: sum(len(view.parameters) for view in views) for key, views in self._pool.items()}
        excess = sum(n_tensors.values()) - _MAX_TENSORS
        for key in list(self._pool)[:-1]:
            if excess <= 0:
                return
            del self._pool[key]
            excess -= n_tensors[key]

    def _build(self, path: str, block: Block) -> nn.Module:
        largest = self._network.get_submodule(path)
        module = skeleton(block.build)
        if len(shared_buffers(module)) < len(list(module.buffers())):
            device = next(largest.parameters()).device
            with torch.random.fork_rng(devices=[]), torch.device(device):
                module = block.build()  # for the values of buffers of its own
        share(module, largest, path, self._rules)
        return module


class _View:
    """A module of the pool, and what it was like when it was built."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self._inner = [child for child in module.modules() if child is not module]  # references to it are counted
        every = list(module.modules())
        self._hooks = [hooks for m in every for hooks in (m._forward_hooks, m._forward_pre_hooks, m._backward_hooks)]
        self._submodules = [m._modules for m in every]
        self._structure = self._children()
        self._has_own_train = any(type(m).train is not nn.Module.train for m in every)
        self.parameters = list(module.parameters())
        self._trainable = [parameter.requires_grad for parameter in self.parameters]

    def is_free(self) -> bool:
        """Return whether nobody but the pool holds the module."""
        return sys.getrefcount(self.module) <= _POOL_REFERENCES

    def is_untouched(self) -> bool:
        """Return whether the module is as it was built: no hooks, the same submodules, parameters as trainable."""
        if any(self._hooks) or self._children() != self._structure:
            return False
        return [p.grad is not None and p.requires_grad for p in self.parameters] == self._trainable

    def set_mode(self, training: bool) -> None:
        """Put the module and all inside it into a mode; layers forget what they kept of weights in eval mode."""
        if self._has_own_train:
            self.module.train(training)
            return
        for module in (self.module, *self._inner):  # several times faster
            if module.training != training:
                module.training = training

    def _children(self) -> list[tuple[nn.Module | None, ...]]:
        return [tuple(submodules.values()) for submodules in self._submodules]
