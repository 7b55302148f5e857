"""Which level of a bundle to run at a battery charge: thresholds with hysteresis, as a pure function."""

from dataclasses import dataclass
from itertools import pairwise

import psutil

from export.errors import check_number
from ofa.core.errors import BundleError


@dataclass(frozen=True)
class Battery:
    """A reading of the battery: the charge, 0 to 100, and whether the device is on mains power."""

    percent: float
    charging: bool


@dataclass(frozen=True)
class BatteryPolicy:
    """Level 0 above the first threshold, level 1 from there down to the second, and so on; level 0 on mains power.

    Attributes:
        thresholds_percent: strictly descending, one fewer than there are levels. At a charge equal to a threshold,
            the faster level runs.
        hysteresis_percent: a more accurate level returns only when the charge exceeds its threshold by more than
            this, so that a reading that wavers does not switch back and forth.
    """

    thresholds_percent: tuple[float, ...]
    hysteresis_percent: float = 3.0

    def __post_init__(self) -> None:
        for threshold in self.thresholds_percent:
            check_number("thresholds_percent", threshold, 0, 100, kind=BundleError)
        if any(high <= low for high, low in pairwise(self.thresholds_percent)):
            raise BundleError(f"thresholds_percent = {self.thresholds_percent} must descend; give each value once")
        check_number("hysteresis_percent", self.hysteresis_percent, 0, 100, kind=BundleError)

    @classmethod
    def even(cls, n_levels: int) -> "BatteryPolicy":
        """Return a policy with an equal share of the charge for each level: 75, 50 and 25 percent for 4 levels."""
        check_number("n_levels", n_levels, 1, 1000, whole=True, kind=BundleError)
        return cls(tuple(100 * (n_levels - i) / n_levels for i in range(1, n_levels)))

    @property
    def n_levels(self) -> int:
        """The number of levels that the policy chooses from."""
        return len(self.thresholds_percent) + 1

    def level(self, battery_percent: float, current_level: int | None, charging: bool = False) -> int:
        """Return the level to run now; BundleError for a charge or a current level that cannot be.

        At the start, `current_level` is None and hysteresis does not apply.
        """
        check_number("battery_percent", battery_percent, 0, 100, kind=BundleError)
        if current_level is not None:
            check_number("current_level", current_level, 0, self.n_levels - 1, whole=True, kind=BundleError)
        if charging:
            return 0
        fastest = sum(battery_percent <= t for t in self.thresholds_percent)
        if current_level is None:
            return fastest
        slowest_return = sum(battery_percent <= t + self.hysteresis_percent for t in self.thresholds_percent)
        return max(fastest, min(current_level, slowest_return))


def psutil_battery() -> Battery:
    """Read this machine's battery; a machine without one counts as fully charged, on mains power."""
    reading = psutil.sensors_battery() if hasattr(psutil, "sensors_battery") else None
    if reading is None:
        return Battery(100.0, charging=True)
    return Battery(min(100.0, max(0.0, float(reading.percent))), charging=bool(reading.power_plugged))
