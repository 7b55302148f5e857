"""Energy of an inference: from a model of the power drawn, or measured with the processor's own counters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from ofa.core.config import Config
from ofa.core.errors import DeviceError
from ofa.devices.device import Runner

POWERCAP = Path("/sys/class/powercap")


class PowerConfig(Config):
    """What a device draws."""

    busy_w: float = Field(gt=0)
    """Watts while a network runs."""
    idle_w: float = Field(0.0, ge=0)
    """Watts of these that are drawn also while nothing runs, and so are not counted."""
    macs_pj: float = Field(0.0, ge=0)
    """Picojoule that each multiply-accumulate takes beside that; 0 if `busy_w` was measured while networks ran."""

    @model_validator(mode="after")
    def _more_when_busy(self) -> Self:
        if self.idle_w >= self.busy_w:
            raise ValueError(f"idle_w = {self.idle_w:g} is not below busy_w = {self.busy_w:g}; lower it")
        return self


def energy_mj(latency_ms: NDArray[np.float64], macs_m: NDArray[np.float64], power: PowerConfig) -> NDArray[np.float64]:
    """Millijoule `[n]` of one inference each, of latencies `[n]` in ms and millions of multiply-accumulates `[n]`."""
    return (power.busy_w - power.idle_w) * latency_ms + 1e-3 * power.macs_pj * macs_m


@dataclass(frozen=True)
class Zone:
    """A counter of energy.

    Attributes:
        path: of the folder that the kernel shows it as.
        range_uj: the counter's largest value in microjoule, after which it starts from 0.
    """

    path: Path
    range_uj: int

    def read_uj(self) -> int:
        """What the counter shows.

        Raises:
            DeviceError: it cannot be read.
        """
        return _number(self.path / "energy_uj")


@dataclass(frozen=True)
class Rapl:
    """The energy counters of processors (RAPL), as Linux shows them: of each package, and of memory beside it.

    They count the whole machine's work, and all that a processor draws, also when idle. A counter that wraps around
    more than once between two readings, which takes many minutes, counts too little.
    """

    zones: tuple[Zone, ...]

    @classmethod
    def find(cls, root: Path = POWERCAP) -> Self | None:
        """The counters of this machine; None if it has none, as most virtual machines.

        Raises:
            DeviceError: there are some, but they cannot be read.
        """
        paths = [path for path in sorted(root.glob("intel-rapl:*")) if _is_counted(_text(path / "name"))]
        if not paths:
            return None
        found = cls(tuple(Zone(path, _number(path / "max_energy_range_uj")) for path in paths))
        found.read_uj()
        return found

    def read_uj(self) -> tuple[int, ...]:
        """What the counters show in microjoule.

        Raises:
            DeviceError: one cannot be read.
        """
        return tuple(zone.read_uj() for zone in self.zones)

    def between_mj(self, before: Sequence[int], after: Sequence[int]) -> float:
        """Millijoule between two readings."""
        pairs = zip(self.zones, before, after, strict=True)
        return sum(new - old if new >= old else new - old + zone.range_uj for zone, old, new in pairs) / 1e3


def measure_energy_mj(runner: Runner, n: int, rapl: Rapl) -> float:
    """Millijoule of one run, over `n` in a row and the one before them: of all that the machine did meanwhile.

    Args:
        runner: a model that is ready to run.
        n: so many that they last a second; counters move about once a millisecond.
        rapl: see `Rapl.find`.

    Raises:
        DeviceError: fewer than 1 run, counters that cannot be read or that did not move.
    """
    if n < 1:
        raise DeviceError(f"n = {n} runs are not allowed; give at least 1")
    before = rapl.read_uj()
    runner(n)
    total_mj = rapl.between_mj(before, rapl.read_uj())
    if total_mj == 0:
        raise DeviceError(f"the energy counters did not move during {n} runs; give more runs, that last a second")
    return total_mj / (n + 1)


def _is_counted(name: str) -> bool:
    """Cores and graphics are parts of a package, the platform (psys) holds the packages; memory stands beside them."""
    return name.startswith("package") or name == "dram"


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError as error:
        raise DeviceError(
            f"{path} cannot be read ({error.strerror}); the kernel lets only root read energy, "
            "so run as root or let others read it with chmod"
        ) from error


def _number(path: Path) -> int:
    text = _text(path)
    try:
        return int(text)
    except ValueError as error:
        raise DeviceError(f"{path} holds {text!r}, not a number of microjoule; use a power model instead") from error
