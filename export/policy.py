"""Which level of a bundle to run at a battery charge: thresholds with hysteresis, as a pure function."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import psutil

from ofa.core.errors import BundleError


@dataclass(frozen=True)
class Battery:
    """A reading of the battery.

    Attributes:
        percent: charge, 0 to 100.
        charging: on mains power.
    """

    percent: float
    charging: bool


@dataclass(frozen=True)
class BatteryPolicy:
    """Level 0 above the first threshold, level 1 from there down to the second, and so on; level 0 on mains power.

    Attributes:
        thresholds_percent: strictly descending, one fewer than there are levels. A charge equal to a
            threshold is already the faster level's.
        hysteresis_percent: going back to a more accurate level waits until the charge is above the
            threshold by more than this, so that a reading that wavers does not switch back and forth.
    """

    thresholds_percent: tuple[float, ...]
    hysteresis_percent: float = 3.0

    def __post_init__(self) -> None:
        thresholds = self.thresholds_percent
        inside = all(math.isfinite(t) and 0 <= t <= 100 for t in thresholds)
        if not inside or any(high <= low for high, low in pairwise(thresholds)):
            raise BundleError(f"thresholds_percent = {thresholds}; give values from 100 down to 0, each once")
        if not (math.isfinite(self.hysteresis_percent) and self.hysteresis_percent >= 0):
            raise BundleError(f"hysteresis_percent = {self.hysteresis_percent}; give 0 or more")

    @classmethod
    def even(cls, n_levels: int, hysteresis_percent: float = 3.0) -> BatteryPolicy:
        """An equal share of the charge for each level: 75, 50 and 25 percent for 4 levels."""
        if n_levels < 1:
            raise BundleError(f"n_levels = {n_levels} is not allowed; give at least 1")
        return cls(tuple(100 * (n_levels - i) / n_levels for i in range(1, n_levels)), hysteresis_percent)

    @property
    def n_levels(self) -> int:
        """How many levels the policy chooses from."""
        return len(self.thresholds_percent) + 1

    def level(self, battery_percent: float, current_level: int | None, charging: bool = False) -> int:
        """The level to run now.

        Args:
            battery_percent: 0 to 100.
            current_level: what runs now; None at the start, when there is nothing to hold on to.
            charging: on mains power.

        Raises:
            BundleError: a charge that is not from 0 to 100, or a current level that does not exist.
        """
        if not 0 <= battery_percent <= 100:
            raise BundleError(f"battery_percent = {battery_percent}; a charge is from 0 to 100")
        if current_level is not None and not 0 <= current_level < self.n_levels:
            raise BundleError(f"current_level = {current_level}; this policy has levels 0 to {self.n_levels - 1}")
        if charging:
            return 0
        wanted = sum(battery_percent <= t for t in self.thresholds_percent)
        if current_level is None:
            return wanted
        slowest_return = sum(battery_percent <= t + self.hysteresis_percent for t in self.thresholds_percent)
        return max(wanted, min(current_level, slowest_return))


def psutil_battery() -> Battery:
    """This machine's battery; without one, a full battery on mains power."""
    reading = psutil.sensors_battery() if hasattr(psutil, "sensors_battery") else None
    if reading is None:
        return Battery(100.0, charging=True)
    return Battery(min(100.0, max(0.0, float(reading.percent))), charging=bool(reading.power_plugged))
