"""Energy of an inference: from a model of the power, or measured with the processor's own counters."""

from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from ofa.core.config import Config
from ofa.core.errors import DeviceError
from ofa.devices.device import Runner


class PowerConfig(Config):
    """The power that a device draws."""

    busy_w: float = Field(gt=0, le=1e6)
    """Power in watts while a network runs."""
    idle_w: float = Field(0.0, ge=0)
    """Part of `busy_w` in watts that the device also draws while idle; it is not counted."""
    macs_pj: float = Field(0.0, ge=0, le=1e6)
    """Additional energy of each multiply-accumulate in picojoules; 0 if `busy_w` was measured while networks ran."""

    @model_validator(mode="after")
    def _check_idle_power(self) -> Self:
        if self.idle_w >= self.busy_w:
            raise ValueError(f"idle_w = {self.idle_w:g} is not below busy_w = {self.busy_w:g}; lower it")
        return self


def energy_mj(latency_ms: NDArray[np.float64], macs_m: NDArray[np.float64], power: PowerConfig) -> NDArray[np.float64]:
    """Return the energy in millijoules `[n]` of one inference each, from latencies `[n]` and millions of MACs `[n]`."""
    return (power.busy_w - power.idle_w) * latency_ms + 1e-3 * power.macs_pj * macs_m


@dataclass(frozen=True)
class Rapl:
    """Energy counters (RAPL) that Linux shows: one per processor package, and one per package's memory.

    They count all work of the machine and its idle power. A counter that wraps around more than once between two
    readings, which takes many minutes, counts too little. After the largest value in `range_uj`, in microjoules, each
    restarts from 0; `zones` are their folders.
    """

    zones: tuple[Path, ...]
    range_uj: tuple[int, ...]

    @classmethod
    def find(cls, root: Path = Path("/sys/class/powercap")) -> Self | None:
        """Return the counters of this machine, or None if it has none, like most virtual machines.

        Raises:
            DeviceError: the counters cannot be read.
        """
        folders = sorted(root.glob("intel-rapl:*"))
        zones = tuple(f for f in folders if _read(f / "name").startswith(("package", "dram")))  # cores are in packages
        if not zones:
            return None
        rapl = cls(zones, tuple(_read_uj(zone / "max_energy_range_uj") for zone in zones))
        rapl.read_uj()
        return rapl

    def read_uj(self) -> tuple[int, ...]:
        """Return the values of the counters in microjoules.

        Raises:
            DeviceError: a counter cannot be read.
        """
        return tuple(_read_uj(zone / "energy_uj") for zone in self.zones)


def measure_energy_mj(runner: Runner, n: int, rapl: Rapl) -> float:
    """Measure the energy in millijoules that the whole machine takes for one run of a model.

    The `n` runs should last a second, because the counters advance only about once a millisecond. The runner's untimed
    run is counted as well.

    Raises:
        DeviceError: `n` is below 1, or the counters cannot be read or did not advance.
    """
    if n < 1:
        raise DeviceError(f"n = {n} runs are not allowed; give at least 1")
    before = rapl.read_uj()
    runner(n)
    readings = zip(before, rapl.read_uj(), rapl.range_uj, strict=True)
    total_uj = sum(new - old if new >= old else new - old + range_uj for old, new, range_uj in readings)
    if total_uj == 0:
        raise DeviceError(f"the energy counters did not advance during {n} runs; give more runs, that last a second")
    return total_uj / 1e3 / (n + 1)


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError as error:
        reason = f"{error.strerror}; by default only root may read energy"
        raise DeviceError(f"{path} cannot be read ({reason}); run as root, or let others read it") from error


def _read_uj(path: Path) -> int:
    text = _read(path)
    if not text.isdecimal():
        raise DeviceError(f"{path} holds {text!r}, not a number of microjoules; use a power model instead")
    return int(text)
