"""The interfaces of a device, and the models and timings that pass through them."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import Any, Protocol, Self, runtime_checkable

import torch
from torch import nn

from ofa.core.errors import DeviceError
from ofa.supernet.block import skeleton


@dataclass(frozen=True)
class Timing:
    """Latency of one run of the whole batch: median and interquartile range of bursts that are corrected for drift.

    Raises:
        DeviceError: a number is negative, infinite or NaN, or there is no burst.
    """

    median_ms: float
    spread_ms: float
    repeats: int

    def __post_init__(self) -> None:
        if not (0 <= self.median_ms < math.inf and 0 <= self.spread_ms < math.inf and self.repeats >= 1):
            raise DeviceError(f"{self} is not a timing; measure again")

    def relative_error(self, fastest: bool = False) -> float:
        """Return the standard error of `median_ms` relative to it, for normally distributed bursts.

        If the bursts are the `fastest` ones of a larger sample, their median is a low quantile of that sample, whose
        standard error follows from the binomial spread of its rank; it is infinite for one burst.
        """
        relative_spread, n = self.spread_ms / self.median_ms, self.repeats
        if fastest:
            return 1.37 * relative_spread * math.sqrt(n) / (n - 1) if n > 1 else math.inf
        return 0.93 * relative_spread / math.sqrt(n)  # sqrt(pi / 2) sigma / sqrt(n), and the spread is 1.35 sigma


@dataclass(frozen=True)
class Model:
    """A network that a device can load.

    Attributes:
        build: function that builds the network.
        input_shape: shape of the input without the batch dimension.
        file: an exported file of this very network. A device that runs files loads it as it is, so that what is
            measured is what is deployed; without one, it exports the network in the precision that it was given.
    """

    build: Callable[[], nn.Module]
    input_shape: tuple[int, ...]
    file: Path | None = None

    @classmethod
    def of(cls, module: nn.Module, input_shape: tuple[int, ...], file: Path | None = None) -> Self:
        """Wrap an existing module, and a file of it if there is one."""
        return cls(lambda: module, input_shape, file)

    def module(self) -> nn.Module:
        """Build the network in eval mode, with the same weights each time; the global generator keeps its state."""
        with _BUILDING, torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return self.build().eval()

    @cached_property
    def weights_mib(self) -> float:
        """Memory of the parameters in MiB."""
        with _BUILDING:
            module = skeleton(self.build)
        return sum(p.numel() * p.element_size() for p in module.parameters()) / 2**20


_BUILDING = Lock()  # hosts load models in threads of their own, and torch's generator is global


class Runner(Protocol):
    """A model that a host has loaded."""

    def __call__(self, n: int) -> Sequence[float]:
        """Run the model `n` times in a row on one batch, after one untimed run; return the milliseconds of each run.

        Raises:
            HostLost: the host no longer answers.
        """
        ...


class HostLost(Exception):  # noqa: N818  # an event that `measure` handles, not an error of the user
    """A host no longer answers; the other hosts of its device take over its models."""


class Host(Protocol):
    """One machine that runs models, such as this computer or a phone."""

    def load(self, model: Model) -> Runner:
        """Prepare a model for running.

        Raises:
            DeviceError: the host cannot run this model.
            HostLost: the host no longer answers.
        """
        ...


class Device(Protocol):
    """A kind of hardware and runtime whose latencies are measured.

    A device that runs more than float32 has a class attribute `precisions`, a tuple of the values of its option
    `precision`; one that runs other files than ONNX has `formats`, a tuple of the names of their formats.

    Attributes:
        name: registered name, such as `ort-cpu`.
        description: runtime and versions, processor, threads, precision, batch and so on, as JSON values.
        hosts: one or more hosts of this kind, which share the models.
    """

    name: str
    description: dict[str, Any]
    hosts: Sequence[Host]


@runtime_checkable
class OpenDevice(Device, Protocol):
    """A device whose hosts come and go, such as phones that open a page; `measure` uses this beside `Device`."""

    def wait_for_hosts(self) -> Sequence[Host]:
        """Return the hosts that are there, or wait for one; DeviceError if none comes."""
        ...

    def show_progress(self, done: int, total: int) -> None:
        """Show on the hosts how far a measurement is."""
        ...
