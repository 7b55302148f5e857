"""A policy that keeps a promise: the most accurate levels with which the battery lasts the promised hours."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from operator import mul

from export.errors import check_number
from export.policies.discharge import Discharge
from export.policies.level_energy import energies_mj, image_latencies_ms, upper_hull
from export.policies.policy import Observation
from export.policies.request_rate import RequestRate
from ofa.core.errors import BundleError
from ofa.pipeline.levels import Level

MJ_PER_WH = 3.6e6
_STATED_SD, _UNKNOWN_SD = 0.25, 1.0
"""Standard deviation of the scale (`Discharge`) where capacity and energies are stated, and where they are not."""
_DWELL_SHARE = 0.01
"""Shortest time between two switches, relative to the promised hours: 5 minutes of 8 hours."""
_SHARE = 0.75
"""A level is served if it can serve this share of the images still expected, and the next cheaper one the rest."""
_GAP_HOURS = 0.25
"""After longer without a decision, the machine may have slept; nothing is learned from that time."""
_COUNTING_HOURS = 0.05
"""Images are counted for so long before their number is relied on."""


@dataclass(frozen=True, eq=False)
class EnduranceState:
    """What an `EndurancePolicy` remembers.

    Attributes:
        last: the last observation.
        level: the level decided on.
        rate: images counted.
        switched_s: time of the last change of level.
        end_s: end of the promised hours; None before the first reading on battery power.
        discharge: belief about the battery; None until the charge that an image takes can be guessed.
        image_percent: that charge at each level, at scale 1.
    """

    last: Observation
    level: int
    rate: RequestRate
    switched_s: float = -math.inf
    end_s: float | None = None
    discharge: Discharge | None = None
    image_percent: tuple[float, ...] = ()


@dataclass(frozen=True)
class EndurancePolicy:
    """Serve the most accurate level with which the battery lasts the promised hours; see `docs/bundle.md`.

    The hours start with the first reading on battery power; charging in between does not move their end. Each decision
    predicts the charge at the end for each level, from the discharge and the requests seen so far, and takes the most
    accurate level that can serve most of the rest and leaves the reserve. As the prediction is made anew each time, the
    day ends up with the right share of neighboring levels. On mains power, and once the hours are over, the most
    accurate level runs.

    Attributes:
        hours: time in hours that the battery must last.
        energies_mj: energy of an image at each level in millijoules.
        top1_percent: accuracy of each level.
        relative: whether the energies are only known up to a common factor.
        requests_per_hour: images expected per hour; None if that is not known. The images counted correct it.
        capacity_wh: energy of the full battery in watt-hours; None to use what the readings state, if anything.
        reserve_percent: charge that must be left at the end.
    """

    hours: float
    energies_mj: tuple[float, ...]
    top1_percent: tuple[float, ...]
    relative: bool = False
    requests_per_hour: float | None = None
    capacity_wh: float | None = None
    reserve_percent: float = 1.0

    def __post_init__(self) -> None:
        check_number("hours", self.hours, 0.01, 10_000, kind=BundleError)
        check_number("reserve_percent", self.reserve_percent, 0, 100, kind=BundleError)
        for name, value in (("requests_per_hour", self.requests_per_hour), ("capacity_wh", self.capacity_wh)):
            if value is not None:
                check_number(name, value, 1e-6, 1e12, kind=BundleError)
        if not self.energies_mj or len(self.energies_mj) != len(self.top1_percent):
            counts = f"{len(self.energies_mj)} energies and {len(self.top1_percent)} accuracies"
            raise BundleError(f"{counts} are not allowed; give one of each per level")
        for energy_mj in self.energies_mj:
            check_number("energies_mj", energy_mj, 1e-9, 1e12, kind=BundleError)
        for top1 in self.top1_percent:
            check_number("top1_percent", top1, 0, 100, kind=BundleError)

    @classmethod
    def of(
        cls,
        levels: Sequence[Level],
        *,
        hours: float,
        requests_per_hour: float | None = None,
        capacity_wh: float | None = None,
        power_w: float | None = None,
    ) -> "EndurancePolicy":
        """Return a policy for the levels of a bundle.

        An image's energy is latency times `power_w`, the power in watts that a running model adds, if that is given;
        else `energy_mj` of the level; if that is not known, it is taken to be proportional to the latency.
        """
        known_mj = energies_mj(levels, power_w)
        return cls(
            hours=hours,
            energies_mj=known_mj or image_latencies_ms(levels),
            top1_percent=tuple(level.top1_percent for level in levels),
            relative=known_mj is None,
            requests_per_hour=requests_per_hour,
            capacity_wh=capacity_wh,
        )

    @property
    def n_levels(self) -> int:
        """The number of levels that the policy chooses from."""
        return len(self.energies_mj)

    @cached_property
    def candidates(self) -> tuple[int, ...]:
        """The levels that it ever serves, from the cheapest to the most accurate."""
        return upper_hull(self.energies_mj, self.top1_percent)

    def decide(self, state: EnduranceState | None, seen: Observation) -> tuple[int, EnduranceState]:
        """Return the level to run from now on, and the next state.

        BundleError for a charge that cannot be, or for counts of another number of levels.
        """
        check_number("battery_percent", seen.battery.percent, 0, 100, kind=BundleError)
        if len(seen.images) != self.n_levels:
            raise BundleError(f"the policy is for {self.n_levels} levels, images are counted for {len(seen.images)}")
        state = self._learn(state or EnduranceState(seen, self.candidates[-1], RequestRate()), seen)
        hours_left = 0.0 if state.end_s is None else (state.end_s - seen.time_s) / 3600
        level = self.candidates[-1]
        if not seen.battery.charging and hours_left > 0:
            level = self._most_accurate_that_lasts(state, hours_left)
            if seen.time_s - state.switched_s < _DWELL_SHARE * 3600 * self.hours:
                level = state.level
        switched_s = state.switched_s if level == state.level else seen.time_s
        return level, replace(state, level=level, switched_s=switched_s)

    def _most_accurate_that_lasts(self, state: EnduranceState, hours: float) -> int:
        """Return the most accurate level that leaves the reserve if it serves `_SHARE` of the rest, else the cheapest.

        The rest is served by the next cheaper level.
        """
        if state.discharge is None:
            return self.candidates[0]
        images = state.rate.expected_images(hours, self.requests_per_hour)
        for cheaper, level in reversed(list(pairwise(self.candidates))):
            percent = _SHARE * state.image_percent[level] + (1 - _SHARE) * state.image_percent[cheaper]
            if state.discharge.expected_percent(hours, images * percent) >= self.reserve_percent:
                return level
        return self.candidates[0]

    def _learn(self, state: EnduranceState, seen: Observation) -> EnduranceState:
        """Return the state after the time, the images and the discharge since the last observation."""
        last, battery = state.last, seen.battery
        hours = max(0.0, seen.time_s - last.time_s) / 3600
        images = [max(0, now - before) for now, before in zip(seen.images, last.images, strict=True)]
        asleep = hours > _GAP_HOURS
        rate = state.rate if asleep else state.rate.counted(sum(images), hours)
        counted = replace(state, last=seen, rate=rate)
        if battery.charging:
            return counted
        if state.discharge is None:
            return self._begin(counted)
        learned = None
        if not (last.battery.charging or asleep):
            used_percent = sum(map(mul, images, state.image_percent))
            learned = state.discharge.after(hours, used_percent).read(last.battery.percent, battery)
        return replace(counted, discharge=learned or state.discharge.restarted(battery))

    def _begin(self, state: EnduranceState) -> EnduranceState:
        """Start the promised hours, and the belief as soon as the charge that an image takes can be guessed."""
        time_s, battery = state.last.time_s, state.last.battery
        end_s = time_s + 3600 * self.hours if state.end_s is None else state.end_s
        state, hours_left = replace(state, end_s=end_s), (end_s - time_s) / 3600
        if hours_left <= 0:
            return state
        capacity_wh = self.capacity_wh or battery.capacity_wh
        images = state.rate.expected_images(hours_left, self.requests_per_hour)
        if not self.relative and capacity_wh:
            percent_per_mj, scale_sd = 100 / (capacity_wh * MJ_PER_WH), _STATED_SD
        elif images > 0 and (self.requests_per_hour or state.rate.hours >= _COUNTING_HOURS):
            mean_mj = sum(self.energies_mj) / self.n_levels  # the mean level is guessed to take half of the charge
            charge_percent = max(battery.percent, battery.step_percent)
            percent_per_mj, scale_sd = charge_percent / 2 / images / mean_mj, _UNKNOWN_SD
        else:
            return state
        background = 100 * battery.power_w / capacity_wh if battery.power_w and capacity_wh else None
        discharge = Discharge.prior(battery, hours=hours_left, background=background, scale_sd=scale_sd)
        image_percent = tuple(energy_mj * percent_per_mj for energy_mj in self.energies_mj)
        return replace(state, discharge=discharge, image_percent=image_percent)
