"""What `ofa bundle demo` shows of a simulated day: the levels of a bundle under a policy, and the best plan."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from export.errors import check_choice, check_number
from export.policies.endurance import MJ_PER_WH, EndurancePolicy
from export.policies.latency_guard import LatencyGuard
from export.policies.level_energy import energies_mj, image_latencies_ms
from export.policies.policy import BatteryPolicy, Policy
from export.policies.simulated_day import Day, Levels, Served, best_plan, draw_day, plan_top1_percent, simulate
from ofa.core.errors import BundleError
from ofa.pipeline.levels import Level

_GUESSED_POWER_W = 5.0
"""True power of a running model in the simulation where nothing is known; the policy is not told."""
_CAPACITY_ERROR = 0.2
_SEED = 0


@dataclass(frozen=True)
class DayStep:
    """A part of a simulated day.

    Attributes:
        hours: since the start of the day, at the end of this part.
        battery_percent: true charge then.
        levels: share of the images that each level served.
        top1_percent: accuracy of those levels, over the images served.
        n_images: images served.
        latency_ms: median latency of a request.
    """

    hours: float
    battery_percent: float
    levels: tuple[float, ...]
    top1_percent: float
    n_images: int
    latency_ms: float


@dataclass(frozen=True)
class DayDemo:
    """A simulated day.

    Attributes:
        steps: its parts; fewer than asked for if the battery was empty before the end.
        lasted: whether the battery lasted the day.
        top1_percent: accuracy over all images asked for; those after an empty battery count as wrong.
        best_top1_percent: that of the best plan in hindsight; None if even the cheapest level does not last.
        capacity_wh: true capacity, of which the policy is told another.
        n_images: images asked for.
    """

    steps: tuple[DayStep, ...]
    lasted: bool
    top1_percent: float
    best_top1_percent: float | None
    capacity_wh: float
    n_images: int


def simulated_demo(
    levels: Sequence[Level],
    *,
    policy: str = "endurance",
    hours: float = 8.0,
    requests_per_hour: float | None = None,
    capacity_wh: float = 50.0,
    power_w: float | None = None,
    latency_bound_ms: float | None = None,
    steps: int = 21,
) -> DayDemo:
    """Simulate a day of a bundle's levels under the policy "battery" or "endurance".

    `export.policies.simulated_day.draw_day` says what happens on that day.
    The rest of the machine draws half of the battery. By default, so many requests come that the levels take the other
    half at their mean energy, or at twice their least energy if that is more. `power_w` is the power in watts that a
    running model adds; without it, the levels' own energies are used. An unknown policy or a number out of range is a
    BundleError.
    """
    check_choice("policy", policy, ("battery", "endurance"), kind=BundleError)
    check_number("hours", hours, 0.01, 100, kind=BundleError)
    check_number("capacity_wh", capacity_wh, 0.01, 10_000, kind=BundleError)
    deciding_policy: Policy = BatteryPolicy.even(len(levels))
    if policy == "endurance":
        deciding_policy = EndurancePolicy.of(levels, hours=hours, requests_per_hour=requests_per_hour, power_w=power_w)
    if latency_bound_ms is not None:
        deciding_policy = LatencyGuard.of(deciding_policy, levels, bound_ms=latency_bound_ms)
    truth = Levels(
        top1_percent=tuple(level.top1_percent for level in levels),
        energies_mj=energies_mj(levels, power_w) or tuple(_GUESSED_POWER_W * ms for ms in image_latencies_ms(levels)),
        latencies_ms=tuple(level.latency_ms for level in levels),
    )
    background_w = capacity_wh / hours / 2
    image_mj = max(float(np.mean(truth.energies_mj)), 2 * min(truth.energies_mj))
    day = draw_day(
        np.random.default_rng(_SEED),
        hours=hours,
        capacity_wh=capacity_wh,
        background_w=background_w,
        requests_per_hour=background_w * MJ_PER_WH / image_mj if requests_per_hour is None else requests_per_hour,
        capacity_error=_CAPACITY_ERROR,
    )
    served, shares = simulate(deciding_policy, day, truth, stated_capacity_wh=capacity_wh), best_plan(day, truth)
    return DayDemo(
        steps=_steps(served, day, truth, steps),
        lasted=served.lasted,
        top1_percent=served.top1_percent,
        best_top1_percent=None if shares is None else plan_top1_percent(shares, truth.top1_percent),
        capacity_wh=day.capacity_wh,
        n_images=int(day.images.sum()),
    )


def _steps(served: Served, day: Day, levels: Levels, n: int) -> tuple[DayStep, ...]:
    edges = np.linspace(0, len(day.images), n + 1).astype(int).clip(max=len(served.levels))
    return tuple(_step(served, day, levels, slice(*pair)) for pair in pairwise(np.unique(edges).tolist()))


def _step(served: Served, day: Day, levels: Levels, part: slice) -> DayStep:
    images, serving = day.images[part], served.levels[part]
    shares = np.bincount(serving, weights=images, minlength=len(levels.top1_percent)) / max(1, images.sum())
    return DayStep(
        hours=part.stop * day.step_s / 3600,
        battery_percent=float(served.charge_percent[part.stop - 1]),
        levels=tuple(shares.tolist()),
        top1_percent=plan_top1_percent(shares, levels.top1_percent),
        n_images=int(images.sum()),
        latency_ms=float(np.median(np.array(levels.latencies_ms)[serving] * day.slowdown[part])),
    )
