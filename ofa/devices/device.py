"""Devices: something that runs models. `ofa.devices.measure` says how long that takes.

Devices reach the engine through the entry-point group `ofa.devices`; each is a function
`device(**options) -> Device`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from threading import Lock
from typing import Any, Protocol

import torch
from torch import nn

from ofa.supernet.block import skeleton


@dataclass(frozen=True)
class Timing:
    """How long one run of a model takes: robust statistics over bursts of runs, the device's drift taken out.

    Attributes:
        median_ms: median over `repeats` bursts, batch 1.
        spread_ms: interquartile range over the same bursts.
        repeats: how many bursts.
    """

    median_ms: float
    spread_ms: float
    repeats: int

    def __post_init__(self) -> None:
        if not (math.isfinite(self.median_ms) and math.isfinite(self.spread_ms)):
            raise ValueError(f"{self} is not finite")

    def error(self, fastest: bool = False) -> float:
        """Relative standard error of the median, as for bursts that vary normally.

        Args:
            fastest: the bursts are the fastest of more: by the binomial spread of a quantile's rank; infinite for one.
        """
        relative, n = self.spread_ms / self.median_ms, self.repeats
        if fastest:
            return 1.37 * relative * math.sqrt(n) / (n - 1) if n > 1 else math.inf
        return 0.93 * relative / math.sqrt(n)


@dataclass(frozen=True)
class Model:
    """What a device runs.

    Attributes:
        build: makes a module; it is put into eval mode.
        input_shape: of its input, without the batch.
    """

    build: Callable[[], nn.Module]
    input_shape: tuple[int, ...]

    @classmethod
    def of(cls, module: nn.Module, input_shape: tuple[int, ...]) -> Model:
        """A module that is there already."""
        return cls(lambda: module, input_shape)

    def module(self) -> nn.Module:
        """The module in eval mode; always with the same weights, the global generator stays as it was."""
        with _BUILDING, torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return self.build().eval()

    @cached_property
    def weights_mib(self) -> float:
        """Memory that its weights take."""
        with _BUILDING:
            made = skeleton(self.build)
        return sum(p.numel() * p.element_size() for p in made.parameters()) / 2**20


_BUILDING = Lock()  # generators are global


class Runner(Protocol):
    """A model that is ready to run."""

    def __call__(self, n: int) -> Sequence[float]:
        """Milliseconds of each of `n` runs in a row at batch 1, after one that is not timed.

        Raises:
            HostLost: the place does not answer any more.
        """
        ...


class HostLost(Exception):  # noqa: N818  # it says what happened
    """A place does not answer any more; what it was to do goes to the others."""


class Host(Protocol):
    """One thing that runs models: a processor, a phone."""

    def load(self, model: Model) -> Runner:
        """Makes a model ready.

        Raises:
            DeviceError: it cannot be run there.
            HostLost: the place does not answer any more.
        """
        ...


class Device(Protocol):
    """What latencies are measured on.

    Attributes:
        name: as registered, such as `ort-cpu`.
        description: what a table must record to be repeated: runtime and versions, processor, threads,
            precision. JSON values only.
        places: those of one kind that share the models; mostly one.
    """

    name: str
    description: dict[str, Any]
    hosts: Sequence[Host]
