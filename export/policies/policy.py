"""Which level of a bundle to run: what a policy sees and decides, and the simplest one, thresholds of the charge."""

from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Protocol

from export.errors import check_number
from export.policies.battery import Battery
from ofa.core.errors import BundleError


@dataclass(frozen=True)
class Observation:
    """What a policy sees when it decides.

    Attributes:
        time_s: a clock in seconds that also runs while the machine sleeps.
        battery: its reading.
        images: images that each level has served since the start.
        level: the level that served the last request; None before the first.
        latency_ms: median latency of the requests that this level served since the last decision; None if there were
            none.
    """

    time_s: float
    battery: Battery
    images: tuple[int, ...]
    level: int | None = None
    latency_ms: float | None = None


class Policy(Protocol):
    """Decides which level to run. It is a constant; what it remembers is a state that is passed in and returned."""

    @property
    def n_levels(self) -> int:
        """The number of levels that the policy chooses from."""

    def decide(self, state: Any, seen: Observation) -> tuple[int, Any]:
        """Return the level to run from now on and the next state; the first state is None.

        An observation that cannot be is a BundleError, and leaves the state as it was.
        """


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

    def decide(self, state: int | None, seen: Observation) -> tuple[int, int]:
        """Return the level for the charge, which is also the next state."""
        level = self.level(seen.battery.percent, state, seen.battery.charging)
        return level, level

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
