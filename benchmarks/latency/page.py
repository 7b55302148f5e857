"""The page of results, docs/results/latency.md, with its plots."""

import json
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from itertools import islice
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.ticker import LogLocator, NullFormatter
from numpy.typing import NDArray

from benchmarks.latency.cases import FOLDER, MANY, Case, stem
from benchmarks.page import save_plot, table, write_page
from ofa import LatencyTable
from ofa.cost.counted import macs_m
from ofa.cost.latency.measurements import to_arrays
from ofa.cost.latency.table import latency_metrics
from ofa.devices.device import Timing
from ofa.devices.estimator import LatencyEstimator

FEW = 20
SPLITS = 20
INTRODUCTION = """
# Latency: predicted against measured

`make bench-latency` writes this page. Each table has all blocks and some networks, and is evaluated on 100 to 200
random archs of all sizes to which it was not fitted. Errors are relative to the measured latency. *Repeat* compares the
same archs in the odd and in the even rounds; no prediction can be much better. *Minutes* are what the measurements of a
method took: blocks and networks for the table, checks for *repeat*. The last column is the lowest rank correlation at
one resolution.
"""

Floats = NDArray[np.float64]


def write_latency_page(cases: Sequence[Case]) -> None:
    sections = [accuracy(cases), *intervals(cases), *new_devices(cases), *repeats(cases), *speed(cases[0].table)]
    write_page("latency", INTRODUCTION, *sections)


def accuracy(cases: Sequence[Case]) -> str:
    """Show how well each way to predict the checks does."""
    columns = "family, device | minutes | method | mean error % | within 5 % | within 10 % | Spearman | at one size"
    return table(columns, (row for case in cases for row in _methods(case)))


def _methods(case: Case) -> list[str]:
    """Return a row for each way to predict the checks of a case."""
    latency, lines = case.table, []
    rows, measured_ms = to_arrays(latency.checks, latency.family)
    networks, checks = ({json.dumps(dict(arch)) for arch in archs} for archs in (latency.networks, latency.checks))
    blocks = case.samples.keys() - networks - checks
    methods = {
        "repeat": (*_odd_and_even(case), checks),
        "plain sum of blocks": (measured_ms, replace(latency, networks={})(rows), blocks),
        "line through MACs": (measured_ms, _by_macs(latency), networks),
        "table": (measured_ms, latency(rows), blocks | networks),
    }
    resolution = rows[:, latency.family.space.column("resolution")]
    groups = [resolution == r for r in np.unique(resolution)]
    for method, (measured, predicted, models) in methods.items():
        it = latency_metrics(measured, predicted)
        worst = min(latency_metrics(measured[g], predicted[g]).spearman for g in groups if g.sum() > 9)
        lines.append(
            f"{case.name} | {_minutes(case, models):.1f} | {method} | {it.mean_error_percent:.2f} "
            f"| {it.within_5_percent:.0f} | {it.within_10_percent:.0f} | {it.spearman:.4f} | {worst:.3f}"
        )
    return lines


def _minutes(case: Case, models: Iterable[str]) -> float:
    """Return the part of a case's minutes that some models took, by the number and the duration of their visits."""

    def total_ms(model: str) -> float:
        run_ms = [burst.run_ms for burst in case.samples[model]]
        n_runs = 1 + max(1.0, MANY.burst_ms / float(np.median(run_ms)))  # one of them is not timed
        return n_runs * sum(run_ms)

    return case.minutes * sum(map(total_ms, models)) / sum(map(total_ms, case.samples))


def _odd_and_even(case: Case) -> tuple[Floats, Floats]:
    """Return the latencies of the checks in the odd and in the even rounds."""
    estimator = LatencyEstimator.fit(case.samples)
    checks = [case.samples[json.dumps(dict(arch))] for arch in case.table.checks]
    odd, even = (np.array([estimator(bursts[start::2]).median_ms for bursts in checks]) for start in (0, 1))
    return odd, even


def _by_macs(latency: LatencyTable) -> Floats:
    """Predict the checks by a line through the MACs of the table's networks, fitted to relative errors."""
    rows, latency_ms = to_arrays(latency.networks, latency.family)
    macs = macs_m(latency.family)
    features = np.stack([macs(rows), np.ones(len(rows))], axis=1) / latency_ms[:, None]
    slope, intercept = np.linalg.lstsq(features, np.ones(len(rows)), rcond=None)[0]
    return np.asarray(slope * macs(to_arrays(latency.checks, latency.family)[0]) + intercept)


def intervals(cases: Sequence[Case]) -> list[str]:
    """Show how many checks lie in their intervals, and plot them."""
    lines, plots = [], []
    for case in cases:
        rows, measured_ms = to_arrays(case.table.checks, case.table.family)
        mean, low, high = case.table.predict(rows)
        inside, half_width = case.table.evaluate().in_interval_percent, 50 * np.median(high / low - 1)
        other = _other_splits(case.table)
        lines.append(
            f"{case.name} | {len(case.table.networks)} | {len(rows)} | {inside:.0f} | {np.mean(other):.0f} "
            f"| {min(other):.0f} | {max(other):.0f} | {half_width:.1f}"
        )
        figure, axes = plt.subplots(figsize=(4.5, 4.5))
        axes.errorbar(measured_ms, mean, [mean - low, high - mean], fmt=".", elinewidth=0.6)
        ends = [measured_ms.min(), measured_ms.max()]
        axes.plot(ends, ends, color="black", linewidth=0.8)
        axes.set(xscale="log", yscale="log", xlabel="measured, ms", ylabel="predicted, ms", title=case.name)
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(LogLocator(subs=(1, 2, 3, 5)))
            axis.set_major_formatter("{x:g}")
            axis.set_minor_formatter(NullFormatter())
        plots.append(f"![{case.name}](latency-{stem(case.name)}.svg)")
        save_plot(figure, f"latency-{stem(case.name)}")
    intro = f"*Other splits*: the same networks in {SPLITS} other random splits."
    columns = "family, device | fitted to | checked on | in their interval, % | other splits, mean % | lowest | highest"
    return ["## Intervals", intro, table(f"{columns} | half width, median %", lines), "\n".join(plots)]


def _other_splits(latency: LatencyTable) -> list[float]:
    """Return how many checks lie in their interval, in percent, if others of the networks are the checks."""
    ends, n_fitted = dict(islice(latency.networks.items(), 2)), len(latency.networks) - 2
    others = [*islice(latency.networks.items(), 2, None), *latency.checks.items()]
    inside_percent = []
    for seed in range(SPLITS):
        shuffled = [others[i] for i in np.random.default_rng(seed).permutation(len(others))]
        split = replace(latency, networks=ends | dict(shuffled[:n_fitted]), checks=dict(shuffled[n_fitted:]))
        inside_percent.append(split.evaluate().in_interval_percent)
    return inside_percent


def new_devices(cases: Sequence[Case]) -> list[str]:
    """Evaluate tables with the blocks of one device and a few networks of another."""
    firsts: dict[str, Case] = {}
    lines = []
    for case in cases:
        first = firsts.setdefault(case.table.family.name, case)
        if first is not case:
            few = dict(islice(case.table.networks.items(), FEW))
            it = replace(first.table, networks=few, checks=case.table.checks).evaluate()
            lines.append(
                f"{case.name} | {it.mean_error_percent:.2f} | {it.within_10_percent:.0f} | {it.spearman:.4f} "
                f"| {case.table.evaluate().spearman:.4f}"
            )
    intro = f"Blocks of the first device and {FEW} networks of the new one (`profile(..., like=table)`), on its checks."
    columns = "family, new device | mean error % | within 10 % | Spearman | Spearman of its own table"
    return [f"## A new device from {FEW} networks", intro, table(columns, lines)]


def repeats(cases: Sequence[Case]) -> list[str]:
    """Compare tables that were measured again with the first ones."""
    lines = []
    for case in cases:
        again = [LatencyTable.load(path) for path in FOLDER.glob(f"{stem(case.name)}-[0-9]*[0-9].json")]
        first, *later = sorted([case.table, *again], key=lambda latency: latency.date)
        for second in later:
            dates = [datetime.fromisoformat(latency.date) for latency in (first, second)]
            hours = (dates[1] - dates[0]).total_seconds() / 3600
            rows, networks = _off_percent(first.rows, second.rows), _off_percent(first.networks, second.networks)
            off = np.median(rows), np.quantile(rows, 0.9), np.median(networks)
            shown = [f"{date:%Y-%m-%d %H:%M}" for date in dates] + [f"{number:.1f}" for number in (hours, *off)]
            lines.append(" | ".join([case.name, *shown, f"{second.evaluate().in_interval_percent:.0f}"]))
    intro = (
        "`--again [CASE]` measures a table anew. The columns show how far its rows\n"
        "(single blocks) and its networks are off the first ones."
    )
    columns = "family, device | first | again | hours later | rows, median % | 9 in 10, at most % | networks, median %"
    return ["## The same table again", intro, table(f"{columns} | its checks in their interval, %", lines)]


def _off_percent(first: Mapping[Any, Timing], second: Mapping[Any, Timing]) -> list[float]:
    common = first.keys() & second.keys()
    return [100 * abs(second[key].median_ms / first[key].median_ms - 1) for key in common]


def speed(latency: LatencyTable, n: int = 1_000_000, n_walked: int = 2_000) -> list[str]:
    """Compare archs per second with a dictionary lookup per block, as in the tables of once-for-all."""
    family, seconds = latency.family, []
    rows = family.space.sample(n, np.random.default_rng(1))
    for cost in (latency, latency.predict):
        cost(rows[:1000])
        begin = time.perf_counter()
        cost(rows)
        seconds.append(time.perf_counter() - begin)
    archs = [family.space.decode(row) for row in rows[:n_walked]]
    begin = time.perf_counter()
    for arch in archs:
        pairs, resolution = family.blocks(family.space.row(arch)), int(arch["resolution"])
        sum(latency.rows[repr(block), slot.size(resolution)].median_ms for slot, block in pairs if block is not None)
    walk_s = (time.perf_counter() - begin) / n_walked
    return [
        "## Speed",
        f"{n:,} archs in {seconds[0]:.2f} s, with intervals in {seconds[1]:.2f} s: {n * walk_s / seconds[0]:.0f} and "
        f"{n * walk_s / seconds[1]:.0f} times as many per second\n"
        "as with a dictionary lookup for each block of each arch, in the same run.",
    ]
