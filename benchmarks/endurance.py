"""Simulated days on battery power: `python -m benchmarks.endurance [DAYS]` writes docs/results/endurance.md."""

import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace

import matplotlib.pyplot as plt
import numpy as np

from benchmarks.page import save_plot, table, write_page
from export.policies.endurance import EndurancePolicy
from export.policies.policy import BatteryPolicy, Observation, Policy
from export.policies.simulated_day import Day, Levels, best_plan, draw_day, plan_top1_percent, simulate

HOURS, CAPACITY_WH, SEED = 8.0, 15.0, 2026
LEVELS = Levels(
    top1_percent=(79.8, 78.7, 77.3, 75.3, 71.8),
    energies_mj=(260.0, 170.0, 110.0, 65.0, 30.0),
    latencies_ms=(52.0, 34.0, 22.0, 13.0, 6.0),
)
BACKGROUND_W, REQUESTS_PER_HOUR = (0.4, 1.2), (8_000.0, 80_000.0)
ERRORS = (0.0, -0.1, 0.1, -0.2, 0.2)


@dataclass(frozen=True)
class Outcome:
    """What a policy did on one day, and the best plan in hindsight."""

    number: int
    budget_mj: float
    lasted: bool
    served_hours: float
    left_percent: float
    switches: int
    top1_percent: float
    best_top1_percent: float

    @property
    def gap(self) -> float:
        """Points of accuracy that the best plan is ahead."""
        return self.best_top1_percent - self.top1_percent


INTRODUCTION = f"""
# A battery that lasts the promised hours

`EndurancePolicy` mixes the levels of a bundle so that the battery lasts the promised hours. Its accuracy is close to
that of the best plan in hindsight: the constant share of requests per level that just lasts, computed exactly from the
true capacity, draws and requests of the day.

Made by `python -m benchmarks.endurance`: simulated days of {HOURS:.0f} hours, seed {SEED}, one decision per minute. The
policy sees the charge in whole percents, a stated capacity of {CAPACITY_WH:.0f} Wh and the energies of the levels. It
does not see that

- the true capacity is off by up to 20 %,
- the rest of the machine draws {BACKGROUND_W[0]} to {BACKGROUND_W[1]} W, which changes to 60 to 140 % of that every
  15 minutes to 2 hours,
- {REQUESTS_PER_HOUR[0]:,.0f} to {REQUESTS_PER_HOUR[1]:,.0f} requests come per hour, twice as many for one hour.

Days on which even the fastest level alone would not last are drawn anew. The constants of the policy were chosen on
days of other seeds. The largest gaps are those of days that nobody could foresee: the machine draws much for hours, and
little once most of the images have been served.
"""


def main(n_days: int) -> None:
    endurance = EndurancePolicy(HOURS, LEVELS.energies_mj, LEVELS.top1_percent)
    relative = EndurancePolicy(HOURS, LEVELS.energies_mj, LEVELS.top1_percent, relative=True)
    n = len(LEVELS.energies_mj)
    days = [drawn_day(number) for number in range(n_days)]
    others = {
        "`EndurancePolicy`": outcomes_of(endurance, days),
        "the same, the energy of each level off by up to 20 % as well": outcomes_of(endurance, days, energy_error=0.2),
        "the same, capacity and power not known": outcomes_of(relative, days),
        "`BatteryPolicy.even`": outcomes_of(BatteryPolicy.even(n), days),
        "most accurate level alone": outcomes_of(_Constant(n, 0), days),
        "fastest level alone": outcomes_of(_Constant(n, n - 1), days),
    }
    errors = {}
    for error in ERRORS:
        some = [drawn_day(number, error) for number in range(n_days // 2)]
        errors[f"{100 * error:+.0f} %" if error else "as stated"] = outcomes_of(endurance, some)
    energies = table(
        "level | top-1 % | energy of an image, mJ",
        [f"{i} | {LEVELS.top1_percent[i]} | {LEVELS.energies_mj[i]:.0f}" for i in range(n)],
    )
    plot({"EndurancePolicy": endurance, "BatteryPolicy.even": BatteryPolicy.even(n)}, days[0])
    write_page("endurance", INTRODUCTION, energies, *sections(next(iter(others.values())), others, errors))


def drawn_day(number: int, capacity_error: float | None = None) -> Day:
    """Return a day of the benchmark, whose capacity is off by up to 20 %, or by `capacity_error`.

    It is drawn anew, a bounded number of times, until the fastest level alone lasts.
    """
    rng = np.random.default_rng([SEED, number])
    for _ in range(1000):
        true_error = rng.uniform(-0.2, 0.2) if capacity_error is None else capacity_error
        day = draw_day(
            rng,
            hours=HOURS,
            capacity_wh=CAPACITY_WH * (1 + true_error),
            background_w=rng.uniform(*BACKGROUND_W),
            requests_per_hour=float(np.exp(rng.uniform(*np.log(REQUESTS_PER_HOUR)))),
            steps=int(60 * HOURS),
        )
        if best_plan(day, LEVELS) is not None:
            return day
    raise RuntimeError("no day is feasible; lower BACKGROUND_W")


def outcomes_of(policy: Policy, days: list[Day], energy_error: float = 0.0) -> list[Outcome]:
    """Let a policy serve some days on which the energy of each level is off by up to `energy_error`, a share.

    Days on which the fastest level alone would not last with those energies are left out.
    """
    outcomes = []
    for number, day in enumerate(days):
        errors = np.random.default_rng([SEED, number, 1]).uniform(-energy_error, energy_error, len(LEVELS.energies_mj))
        levels = replace(LEVELS, energies_mj=tuple((1 + errors) * LEVELS.energies_mj))
        shares = best_plan(day, levels)
        if shares is None:
            continue
        served = simulate(policy, day, levels, stated_capacity_wh=CAPACITY_WH)
        outcomes.append(
            Outcome(
                number=number,
                budget_mj=day.image_budget_mj,
                lasted=bool(served.lasted),
                served_hours=len(served.levels) * day.step_s / 3600,
                left_percent=float(served.charge_percent[-1]),
                switches=int(np.count_nonzero(np.diff(served.levels))),
                top1_percent=served.top1_percent,
                best_top1_percent=plan_top1_percent(shares, LEVELS.top1_percent),
            )
        )
    return outcomes


@dataclass(frozen=True)
class _Constant:
    """A policy that always runs one level."""

    n_levels: int
    level: int

    def decide(self, state: None, _: Observation) -> tuple[int, None]:
        """Return the level."""
        return self.level, state


def summary_row(label: str, outcomes: list[Outcome]) -> str:
    """Return a row of the table of policies."""
    gaps = np.array([outcome.gap for outcome in outcomes])
    lasted = 100 * np.mean([outcome.lasted for outcome in outcomes])
    top1 = np.mean([outcome.top1_percent for outcome in outcomes])
    left = np.median([outcome.left_percent for outcome in outcomes])
    switches = np.median([outcome.switches for outcome in outcomes])
    spread = f"{gaps.mean():.2f} ± {gaps.std():.2f} | {np.percentile(gaps, 90):.2f} | {gaps.max():.2f}"
    return f"{label} | {lasted:.1f} | {top1:.2f} | {spread} | {left:.1f} | {switches:.0f}"


def sections(
    outcomes: list[Outcome], others: dict[str, list[Outcome]], errors: dict[str, list[Outcome]]
) -> Iterator[str]:
    """Yield the sections of the page."""
    columns = "lasts, % of days | top-1 % | gap, mean ± sd | gap, 90 % of days | largest gap | charge left % | switches"
    yield table(f"policy | {columns}", [summary_row(label, some) for label, some in others.items()])
    yield (
        "*Gap*: points of accuracy by which the best plan in hindsight is ahead, over all images that were asked for;\n"
        "those after an empty battery count as wrong. *Charge left* and *switches*: medians."
    )
    yield f"## `EndurancePolicy` and the error of the stated capacity, {len(next(iter(errors.values())))} days each"
    yield table(f"true capacity | {columns}", [summary_row(label, some) for label, some in errors.items()])
    yield "## The days"
    yield "![the first day](endurance.svg)"
    yield "The energy that the background leaves for each image, in millijoules, decides the best plan:"
    yield table("budget, mJ | best plan | days | lasts, % | gap, mean", budget_rows(outcomes))
    yield "## The worst days"
    worst = sorted(outcomes, key=lambda outcome: (outcome.lasted, -outcome.gap))[:8]
    yield table(
        "day | budget, mJ | lasts, h | charge left % | top-1 % | best plan % | gap",
        [
            f"{o.number} | {o.budget_mj:.0f} | {o.served_hours:.2f} | {o.left_percent:.1f} | {o.top1_percent:.2f} "
            f"| {o.best_top1_percent:.2f} | {o.gap:.2f}"
            for o in worst
        ],
    )


def budget_rows(outcomes: list[Outcome]) -> Iterator[str]:
    """Yield a row for each range of budgets with the same levels in the best plan."""
    edges = sorted(LEVELS.energies_mj)
    for low, high in zip(edges, [*edges[1:], np.inf], strict=True):
        if some := [outcome for outcome in outcomes if low <= outcome.budget_mj < high]:
            levels = " and ".join(str(i) for i, mj in enumerate(LEVELS.energies_mj) if mj in (low, high))
            budget = f"{low:.0f} to {high:.0f}" if np.isfinite(high) else f"above {low:.0f}"
            lasts, gap = 100 * np.mean([o.lasted for o in some]), np.mean([o.gap for o in some])
            yield f"{budget} | level {levels} | {len(some)} | {lasts:.0f} | {gap:.2f}"


def plot(policies: dict[str, Policy], day: Day) -> None:
    """Plot charge and level over the hours of one day."""
    figure, (top, bottom) = plt.subplots(2, sharex=True, figsize=(7, 4.5))
    for label, policy in policies.items():
        served = simulate(policy, day, LEVELS, stated_capacity_wh=CAPACITY_WH)
        hours = np.arange(1, len(served.levels) + 1) * day.step_s / 3600
        top.plot(hours, served.charge_percent, label=label)
        bottom.step(hours, served.levels, where="pre")
    top.set(ylabel="charge, %", title=f"Day 0: true capacity {day.capacity_wh:.1f} Wh, {CAPACITY_WH:.0f} Wh are stated")
    top.legend()
    bottom.set(xlabel="hours", ylabel="level", yticks=range(len(LEVELS.energies_mj)))
    bottom.invert_yaxis()
    save_plot(figure, "endurance")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 200)
