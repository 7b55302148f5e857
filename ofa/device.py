"""Devices: something that runs a model and says how long that takes.

Devices reach the engine through the entry-point group `ofa.devices`; each is a function
`device(**options) -> Device`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Any, Protocol

from torch import nn

from ofa.errors import DeviceError


@dataclass(frozen=True)
class Timing:
    """How long one run of a model takes: robust statistics over repeated runs.

    Attributes:
        median_ms: median over `repeats` runs, batch 1.
        spread_ms: interquartile range over the same runs.
        repeats: how many timed runs.
    """

    median_ms: float
    spread_ms: float
    repeats: int

    def __post_init__(self) -> None:
        if not (math.isfinite(self.median_ms) and math.isfinite(self.spread_ms)):
            raise ValueError(f"{self} is not finite")


class Device(Protocol):
    """Measures models at batch 1.

    Attributes:
        name: as registered, such as `ort-cpu`.
        description: what a table must record to be repeated: runtime and versions, processor, threads,
            precision. JSON values only.
    """

    name: str
    description: dict[str, Any]

    def measure(
        self,
        models: Sequence[tuple[nn.Module, tuple[int, ...]]],
        on_progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> list[Timing]:
        """Times each `(module in eval mode, input shape without batch)`, in interleaved rounds.

        Interleaving spreads a drift of the machine over all models alike.
        """
        ...


def device(name: str, **options: Any) -> Device:
    """Makes a device by its registered name.

    Raises:
        DeviceError: no such device, or it cannot run here.
    """
    found = entry_points(group="ofa.devices", name=name)
    if not found:
        raise DeviceError(f"unknown device {name!r}; registered: {', '.join(device_names())}")
    factory: Callable[..., Device] = next(iter(found)).load()
    try:
        return factory(**options)
    except TypeError as error:
        raise DeviceError(f"device {name!r}: {error}") from error


def device_names() -> list[str]:
    """The registered devices, sorted."""
    return sorted(entry_points(group="ofa.devices").names)
