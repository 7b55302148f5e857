"""Gradients averaged over processes in buckets, each as soon as nothing more is added to it in the step."""

from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.utils.hooks import RemovableHandle

from ofa.core.distributed import world_size

_BUCKET_VALUES = 2**22
"""Values of a bucket, but for one of a single larger parameter: 16 MiB, so that a large network has several."""


class GradientBuckets:
    """Averages the gradients of parameters over all processes, while the last backward pass of a step still runs.

    A gradient is whole when the last arch's backward pass has added its part; where that arch has no part, before.
    Backward passes go from the last layers to the first, and so do the buckets. Processes start them in this order
    whatever archs they train, as an all-reduce needs. In a single process, nothing here does anything.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], bucket_values: int = _BUCKET_VALUES) -> None:
        self._buckets: list[list[nn.Parameter]] = []
        for parameter in reversed([p for p in parameters if p.requires_grad]):
            n_values = sum(p.numel() for p in self._buckets[-1]) if self._buckets else bucket_values
            if n_values + parameter.numel() > bucket_values:
                self._buckets.append([])
            self._buckets[-1].append(parameter)
        self._missing: list[int] = []
        self._hooks: list[RemovableHandle] = []
        self._started: list[_Reduction] = []

    def start(self, last: nn.Module) -> None:
        """Average each bucket from now on when the backward pass of the step's last subnet has completed it."""
        if not dist.is_initialized():
            return
        bucket_of = {_memory(p): i for i, bucket in enumerate(self._buckets) for p in bucket}
        self._missing = [0] * len(self._buckets)
        for parameter in last.parameters():
            if parameter.requires_grad:
                i = bucket_of[_memory(parameter)]
                self._missing[i] += 1
                hook = parameter.register_post_accumulate_grad_hook(lambda _, i=i: self._count(i))  # type: ignore[no-untyped-call]  # torch's is not typed
                self._hooks.append(hook)

    def finish(self, others: Iterable[Tensor]) -> None:
        """Average what was not started, and other float tensors on the same device; wait until all are averaged."""
        if not dist.is_initialized():
            return  # before the iterable is consumed
        for hook in self._hooks:
            hook.remove()
        while len(self._started) < len(self._buckets):
            self._start_next()
        self._started.append(_reduction(list(others)))
        with torch.no_grad():
            for tensors, flat, work in self._started:
                work.wait()
                flat /= world_size()
                for tensor, part in zip(tensors, torch.split(flat, [t.numel() for t in tensors]), strict=True):
                    tensor.copy_(part.view(tensor.shape))
        self._hooks, self._started = [], []

    def _count(self, i: int) -> None:
        self._missing[i] -= 1
        while len(self._started) < len(self._buckets) and not self._missing[len(self._started)]:
            self._start_next()

    def _start_next(self) -> None:
        self._started.append(_reduction([_gradient(p) for p in self._buckets[len(self._started)]]))


def _gradient(parameter: nn.Parameter) -> Tensor:
    assert parameter.grad is not None  # the supernet keeps them, as subnets hold views of them
    return parameter.grad


def _memory(parameter: nn.Parameter) -> int:
    """Return where the gradient lies, of which a subnet's parameter has a part."""
    return _gradient(parameter).untyped_storage().data_ptr()


class _Reduction(NamedTuple):
    tensors: list[Tensor]
    flat: Tensor
    work: dist.Work


def _reduction(tensors: list[Tensor]) -> _Reduction:
    """Start to add tensors up over all processes."""
    flat = torch.cat([tensor.detach().reshape(-1).float() for tensor in tensors])
    return _Reduction(tensors, flat, dist.all_reduce(flat, async_op=True))
