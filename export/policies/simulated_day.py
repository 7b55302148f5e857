"""A simulated day of a device on battery power: what a policy does, and what the best plan in hindsight would do."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from export.errors import check_number
from export.policies.battery import Battery
from export.policies.endurance import MJ_PER_WH
from export.policies.level_energy import upper_hull
from export.policies.policy import Observation, Policy
from ofa.core.errors import BundleError


@dataclass(frozen=True, eq=False)
class Day:
    """The truth of a day, which a policy only sees through a battery that shows whole percents.

    Attributes:
        step_s: seconds between two decisions, of which there are `n`.
        capacity_wh: energy of the full battery in watt-hours.
        background_w: what the rest of the machine draws in watts, `[n]`.
        images: images that are asked for, `[n]`.
        slowdown: measured over stated latency, `[n]`.
    """

    step_s: float
    capacity_wh: float
    background_w: NDArray[np.float64]
    images: NDArray[np.int64]
    slowdown: NDArray[np.float64]

    @property
    def hours(self) -> float:
        """How long the day is."""
        return len(self.images) * self.step_s / 3600

    @property
    def image_budget_mj(self) -> float:
        """Energy in millijoules that the background leaves for each image; negative if it takes more than there is."""
        background_wh = self.background_w.sum() * self.step_s / 3600
        return float((self.capacity_wh - background_wh) * MJ_PER_WH / max(1, self.images.sum()))


@dataclass(frozen=True)
class Levels:
    """What the simulation knows of the levels of a bundle: accuracy, energy of an image, latency."""

    top1_percent: tuple[float, ...]
    energies_mj: tuple[float, ...]
    latencies_ms: tuple[float, ...]


@dataclass(frozen=True, eq=False)
class Served:
    """What a policy did on a day, up to the step at which the battery was empty.

    Attributes:
        levels: level that served at each step.
        charge_percent: true charge after each step; 0 at the last one if the battery was empty.
        images: images served at each step; none in the one in which the battery is empty.
        lasted: whether the battery lasted the day.
        top1_percent: expected accuracy over all images that were asked for; those after the end count as wrong.
    """

    levels: NDArray[np.int64]
    charge_percent: NDArray[np.float64]
    images: NDArray[np.int64]
    lasted: bool
    top1_percent: float


def draw_day(
    rng: np.random.Generator,
    *,
    hours: float,
    capacity_wh: float,
    background_w: float,
    requests_per_hour: float,
    capacity_error: float = 0.0,
    steps: int = 960,
) -> Day:
    """Draw a day of `steps` steps.

    The true capacity is off by up to `capacity_error`, a share. The background changes every 3 to 25 % of the day, to
    60 to 140 % of its mean. Requests come at random, and twice as often for an eighth of the day. For another
    eighth, the processor is throttled to 60 % of its speed.
    """
    for name, value in (("hours", hours), ("capacity_wh", capacity_wh), ("requests_per_hour", requests_per_hour)):
        check_number(name, value, 1e-6, 1e12, kind=BundleError)
    background = np.empty(steps)
    start = 0
    while start < steps:
        end = start + max(1, int(rng.uniform(0.03, 0.25) * steps))
        background[start:end] = background_w * rng.uniform(0.6, 1.4)
        start = end
    eighth = steps // 8
    step_s = hours * 3600 / steps
    images_per_step, slowdown = np.full(steps, requests_per_hour * step_s / 3600), np.ones(steps)
    for values, factor in ((images_per_step, 2.0), (slowdown, 1 / 0.6)):
        start = int(rng.integers(0, steps - eighth + 1))
        values[start : start + eighth] *= factor
    capacity = capacity_wh * (1 + rng.uniform(-capacity_error, capacity_error))
    return Day(step_s, float(capacity), background, rng.poisson(images_per_step), slowdown)


def simulate(policy: Policy, day: Day, levels: Levels, *, stated_capacity_wh: float | None) -> Served:
    """Let a policy decide at each step of a day, on a battery that states a capacity and starts full."""
    state, charge_wh = None, day.capacity_wh
    counts = [0] * len(levels.energies_mj)
    chosen: list[int] = []
    charges: list[float] = []
    level: int | None = None
    latency_ms: float | None = None
    for i, images in enumerate(day.images.tolist()):
        battery = Battery(float(round(100 * charge_wh / day.capacity_wh)), False, capacity_wh=stated_capacity_wh)
        seen = Observation(i * day.step_s, battery, tuple(counts), level, latency_ms)
        level, state = policy.decide(state, seen)
        charge_wh -= day.background_w[i] * day.step_s / 3600 + images * levels.energies_mj[level] / MJ_PER_WH
        chosen.append(level)
        charges.append(max(0.0, 100 * charge_wh / day.capacity_wh))
        if charge_wh <= 0:
            break
        counts[level] += images
        latency_ms = levels.latencies_ms[level] * day.slowdown[i] if images else None
    right = sum(n * top1 for n, top1 in zip(counts, levels.top1_percent, strict=True))
    return Served(
        levels=np.array(chosen),
        charge_percent=np.array(charges),
        images=day.images[: len(chosen)] * (np.array(charges) > 0),
        lasted=bool(charge_wh > 0),
        top1_percent=right / max(1, int(day.images.sum())),
    )


def best_plan(day: Day, levels: Levels) -> NDArray[np.float64] | None:
    """Return the share of the images at each level, `[n_levels]`, of the most accurate plan that just lasts the day.

    It mixes two neighbors of the upper concave hull of accuracy over energy. No plan does better, whatever its order,
    as accuracy and energy both only depend on the shares. None if even the cheapest level does not last.
    """
    hull = upper_hull(levels.energies_mj, levels.top1_percent)
    energies = np.array([levels.energies_mj[level] for level in hull])
    if day.image_budget_mj < energies[0]:
        return None
    position = float(np.interp(day.image_budget_mj, energies, np.arange(len(hull))))
    shares = np.zeros(len(levels.energies_mj))
    cheap = min(int(position), len(hull) - 1)
    shares[hull[cheap]] = 1 - (position - cheap)
    if position > cheap:
        shares[hull[cheap + 1]] = position - cheap
    return shares


def plan_top1_percent(shares: NDArray[np.float64], top1_percent: Sequence[float]) -> float:
    """Return the accuracy of a plan."""
    return float(shares @ np.array(top1_percent))
