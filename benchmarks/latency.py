"""Latency predicted against measured: `python -m benchmarks.latency [CASE ...]` writes docs/results/latency.md.

For each family and device: a table (`ofa.cost.latency.profile`), and 100 to 200 random archs more, measured in the
same rounds
and never used for predictions. Tables are kept in `runs/benchmark-latency/`; what is there is not measured again.
`--again [CASE]` measures a case, the first if none is named, once more for the page.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from datetime import datetime
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.ticker import LogLocator, NullFormatter
from numpy.typing import NDArray

from benchmarks.machine import machine
from benchmarks.plots import save
from ofa import Arch, Family, LatencyTable, create_family
from ofa.cost.counted import macs_m
from ofa.cost.latency.metrics import agreement
from ofa.cost.latency.profile import TableConfig, profile
from ofa.devices.registry import create_device
from ofa.devices.statistic import Samples, Statistic

FOLDER, PAGE = Path("runs/benchmark-latency"), Path("docs/results/latency.md")
FEW = 20
SPLITS = 20
MANY = TableConfig(networks=200, checks=200)
MIXED = TableConfig(networks=300, checks=200)  # two kinds of blocks, and int8 and OpenVINO treat both anew
LARGE = TableConfig(networks=180, checks=100, weights_mib=10240)  # in one group
SLOW = TableConfig(networks=120, checks=100, weights_mib=10240)  # quantizing a transformer takes longer than timing it
BIG = TableConfig(networks=100, checks=100, weights_mib=6144)  # OpenVINO takes 3.3 times as much
PATIENT = TableConfig(networks=200, checks=150, max_rounds=120)  # a run waits for whatever disturbs either thread
FAMILIES: dict[str, dict[str, Any]] = {
    "small_mobilenet_v3": {},
    "hybrid_small": {},
    "autoformer_tiny": {"resolutions": [96, 128, 160]},
}
CONFIGS = {
    "hybrid_small": MIXED,
    "autoformer_tiny": LARGE,
    "small_mobilenet_v3, 2 threads": PATIENT,
    "hybrid_small, 2 threads": PATIENT,
    "autoformer_tiny, int8 dynamic": SLOW,
    "autoformer_tiny, openvino": BIG,
}
"""Of families and cases that are not measured like `MANY`."""
DEVICES: dict[str, tuple[str, dict[str, Any]]] = {
    "1 thread": ("ort-cpu", {"threads": 1}),
    "2 threads": ("ort-cpu", {"threads": 2}),
    "int8 static": ("ort-cpu", {"threads": 1, "precision": "int8_static"}),
    "int8 dynamic": ("ort-cpu", {"threads": 1, "precision": "int8_dynamic"}),
    "openvino": ("openvino-cpu", {"threads": 1}),
}
_OTHER_INT8 = {"small_mobilenet_v3": "int8 dynamic", "hybrid_small": "int8 dynamic", "autoformer_tiny": "int8 static"}
CASES = [f"{name}, {on}" for name in FAMILIES for on in DEVICES if on != _OTHER_INT8[name]]

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Case:
    """A family on a device: its table, what of it was measured, and how long that took."""

    name: str
    table: LatencyTable
    samples: Samples
    minutes: float


def main(names: list[str]) -> None:
    cases = [_case(name) for name in names or CASES]
    lines = [
        "# Latency: predicted against measured",
        "",
        "Made by `make bench-latency`: tables of all blocks and some networks, judged on 100 to 200 random archs of",
        "all sizes that predictions were never fitted to. Errors are relative to the measured latency.",
        "*Repeat*: the same archs in the odd and in the even rounds; no prediction can be much better.",
        "Minutes: what the method's measurements took; the table's are of blocks and networks, *repeat*'s of checks.",
        "The last column is the lowest rank correlation at one resolution.",
        "",
        f"Machine: {machine()}.",
        "",
        "| family, device | minutes | method | mean error % | within 5 % | within 10 % | Spearman | at one size |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for case in cases:
        lines += _rows(case)
    lines += ["", *_intervals(cases), "", *_few(cases), "", *_repeats(cases), "", *_speed(cases[0].table), ""]
    PAGE.write_text("\n".join(lines))


def _case(name: str, suffix: str = "") -> Case:
    """A case that is kept, or is measured now, in a process of its own: OpenVINO leaves memory mapped behind."""
    path = FOLDER / f"{_stem(name)}{suffix}.json"
    if not path.exists():
        FOLDER.mkdir(parents=True, exist_ok=True)
        with ProcessPoolExecutor(1, get_context("spawn")) as process:
            process.submit(_measure, name, path).result()
    samples = json.loads(_samples(path).read_text())["samples"]
    return Case(name, LatencyTable.load(path), samples, float(_minutes_file(path).read_text()))


def _measure(name: str, path: Path) -> None:
    """Measures a case, and keeps it."""
    kind, on = name.split(", ")
    made, (device_name, options) = create_family(kind, **FAMILIES[kind]), DEVICES[on]
    config = CONFIGS.get(name) or CONFIGS.get(kind, MANY)
    begin = time.monotonic()
    table = profile(made, create_device(device_name, **options), np.random.default_rng(0), config, _samples(path))
    minutes = (time.monotonic() - begin) / 60
    _minutes_file(path).write_text(str(minutes))
    table.save(path)
    print(name, f"{minutes:.1f} minutes", table.judge(), flush=True)


def _samples(path: Path) -> Path:
    return path.with_suffix(".samples.json")


def _minutes_file(path: Path) -> Path:
    return path.with_suffix(".minutes")


def _stem(name: str) -> str:
    """What a case's files are called."""
    return name.replace(", ", "-").replace(" ", "_")


def _rows(case: Case) -> list[str]:
    table = case.table
    rows, measured_ms = _checks(table)
    networks, checks = ({_key(one.arch) for one in some} for some in (table.networks, table.checks))
    blocks = case.samples.keys() - networks - checks
    methods = {
        "repeat": (_repeated(case), checks),
        "plain sum of blocks": ((measured_ms, table.plain_sum(rows)), blocks),
        "line through MACs": ((measured_ms, _by_macs(table)), networks),
        "table": ((measured_ms, table(rows)), blocks | networks),
    }
    resolution = rows[:, table.family.space.column("resolution")]
    lines = []
    for method, ((measured, predicted), needed) in methods.items():
        found = agreement(measured, predicted)
        within = [agreement(measured[at], predicted[at]) for at in (resolution == r for r in np.unique(resolution))]
        worst = min(one.spearman for one in within if one.n > 9)
        lines.append(
            f"| {case.name} | {_minutes(case, needed):.1f} | {method} | {found.mean_error_percent:.2f} "
            f"| {found.within_5_percent:.0f} | {found.within_10_percent:.0f} | {found.spearman:.4f} | {worst:.3f} |"
        )
    return lines


def _key(arch: Arch) -> str:
    """Names a whole network in the samples of a table."""
    return json.dumps(dict(arch))


def _minutes(case: Case, needed: Iterable[str]) -> float:
    """What of the case's minutes the measuring of these models took, by the visits they got and how long those last."""

    def visits_ms(name: str) -> float:
        took_ms = [ms for ms, *_ in case.samples[name]]
        runs = 1 + max(1.0, MANY.burst_ms / float(np.median(took_ms)))  # one of them is not timed
        return runs * sum(took_ms)

    return case.minutes * sum(map(visits_ms, needed)) / sum(map(visits_ms, case.samples))


def _checks(table: LatencyTable) -> tuple[Any, Floats]:
    rows = table.family.space.rows(check.arch for check in table.checks)
    return rows, np.array([check.timing.median_ms for check in table.checks])


def _repeated(case: Case) -> tuple[Floats, Floats]:
    """The checks in the odd and in the even rounds."""
    statistic = Statistic.of(case.samples)
    checks = [case.samples[_key(check.arch)] for check in case.table.checks]
    odd, even = (np.array([statistic(bursts[start::2]).median_ms for bursts in checks]) for start in (0, 1))
    return odd, even


def _by_macs(table: LatencyTable) -> Floats:
    """A line through the MACs of the networks that the table is fitted to, errors relative."""
    space, count = table.family.space, macs_m(table.family)
    latency_ms = np.array([network.timing.median_ms for network in table.networks])
    known = count(space.rows(network.arch for network in table.networks))
    features = np.stack([known, np.ones_like(known)], axis=1) / latency_ms[:, None]
    slope, start = np.linalg.lstsq(features, np.ones_like(known), rcond=None)[0]
    return np.asarray(slope * count(_checks(table)[0]) + start)


def _intervals(cases: list[Case]) -> list[str]:
    """How many checks lie in their 90% interval, and plots."""
    lines = [
        "## Intervals",
        "",
        f"*Other splits*: the same networks, split anew by chance into fitted and checked ones, {SPLITS} times.",
        "",
        "| family, device | fitted to | checked on | in their interval, % | other splits, mean % | lowest | highest "
        "| half width, median % |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    plots = []
    for case in cases:
        rows, measured_ms = _checks(case.table)
        latency_ms, low_ms, high_ms = case.table.predict(rows)
        inside = 100 * np.mean((low_ms <= measured_ms) & (measured_ms <= high_ms))
        half = 50 * np.median(high_ms / low_ms - 1)
        fitted = len(case.table.networks)
        others = _other_splits(case.table)
        lines.append(
            f"| {case.name} | {fitted} | {len(measured_ms)} | {inside:.0f} | {np.mean(others):.0f} | {min(others):.0f} "
            f"| {max(others):.0f} | {half:.1f} |"
        )
        figure, axes = plt.subplots(figsize=(4.5, 4.5))
        axes.errorbar(measured_ms, latency_ms, [latency_ms - low_ms, high_ms - latency_ms], fmt=".", elinewidth=0.6)
        ends = [measured_ms.min(), measured_ms.max()]
        axes.plot(ends, ends, color="black", linewidth=0.8)
        axes.set(xscale="log", yscale="log", xlabel="measured, ms", ylabel="predicted, ms", title=case.name)
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(LogLocator(subs=(1, 2, 3, 5)))
            axis.set_major_formatter("{x:g}")
            axis.set_minor_formatter(NullFormatter())
        name = f"latency-{_stem(case.name)}.svg"
        save(figure, PAGE.with_name(name))
        plots.append(f"![{case.name}]({name})")
    return [*lines, "", *plots]


def _other_splits(table: LatencyTable) -> list[float]:
    """How many checks lie in their interval, in percent, if others of the networks are the checks."""
    ends, every, n_fitted = table.networks[:2], table.networks[2:] + table.checks, len(table.networks) - 2
    found = []
    for seed in range(SPLITS):
        drawn = [every[i] for i in np.random.default_rng(seed).permutation(len(every))]
        split = replace(table, networks=(*ends, *drawn[:n_fitted]), checks=tuple(drawn[n_fitted:]))
        found.append(split.judge()["in_interval_percent"])
    return found


def _few(cases: list[Case]) -> list[str]:
    """A device known from a few networks and the blocks of another one."""
    lines = [
        f"## A new device from {FEW} networks",
        "",
        f"Blocks of the first device, {FEW} networks measured on the new one (`ofa.cost.adapt`), judged on its checks.",
        "",
        "| family, new device | mean error % | within 10 % | Spearman | Spearman of its own table |",
        "| --- | --- | --- | --- | --- |",
    ]
    firsts: dict[str, Case] = {}
    for case in cases:
        first = firsts.setdefault(case.table.family.name, case)
        if first is not case:
            few = replace(first.table, networks=case.table.networks[:FEW], checks=case.table.checks)
            found, own = few.judge(), case.table.judge()
            lines.append(
                f"| {case.name} | {found['mean_error_percent']:.2f} | {found['within_10_percent']:.0f} "
                f"| {found['spearman']:.4f} | {own['spearman']:.4f} |"
            )
    return lines


def _speed(table: LatencyTable, n: int = 1_000_000, n_walked: int = 2_000) -> list[str]:
    """Archs costed per second, against walking a dictionary per arch, as once-for-all's tables do."""
    rows = table.family.space.sample(n, np.random.default_rng(1))
    took_s = []
    for cost in (table, table.predict):
        cost(rows[:1000])
        begin = time.perf_counter()
        cost(rows)
        took_s.append(time.perf_counter() - begin)
    archs = [table.family.space.decode(row) for row in rows[:n_walked]]
    begin = time.perf_counter()
    for arch in archs:
        _walk(table, table.family, arch)
    walked = (time.perf_counter() - begin) / n_walked
    return [
        "## Speed",
        "",
        f"{n:,} archs in {took_s[0]:.2f} s, with intervals in {took_s[1]:.2f} s:",
        f"{n / took_s[0] * walked:.0f} and {n / took_s[1] * walked:.0f} times as many per second as looking up each",
        "block of each arch in a dictionary, in the same run.",
    ]


def _walk(table: LatencyTable, made: Family, arch: Any) -> float:
    resolution = int(arch["resolution"])
    blocks = made.blocks(made.space.row(arch))
    return sum(table.rows[repr(block), slot.size(resolution)].median_ms for slot, block in blocks if block is not None)


def _repeats(cases: list[Case]) -> list[str]:
    """Rows of tables that `--again` made of the same family and device, against those of the first."""
    lines = [
        "## The same table again",
        "",
        "By `python -m benchmarks.latency --again [CASE]`, all measured anew: how far rows, which are blocks alone,",
        "and networks are off the first ones.",
        "",
        "| family, device | first | again | hours later | rows, median % | 9 in 10, at most % | networks, median % "
        "| its checks in their interval, % |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for case in cases:
        others = [LatencyTable.load(path) for path in FOLDER.glob(f"{_stem(case.name)}-[0-9]*[0-9].json")]
        first, *later = sorted([case.table, *others], key=lambda table: table.date)
        for second in later:
            begins = [datetime.fromisoformat(table.date) for table in (first, second)]
            hours = (begins[1] - begins[0]).total_seconds() / 3600
            rows = [100 * abs(second.rows[key].median_ms / one.median_ms - 1) for key, one in first.rows.items()]
            pairs = zip(first.networks, second.networks, strict=False)  # the same ones first
            networks = [100 * abs(b.timing.median_ms / a.timing.median_ms - 1) for a, b in pairs]
            lines.append(
                f"| {case.name} | {begins[0]:%Y-%m-%d %H:%M} | {begins[1]:%Y-%m-%d %H:%M} | {hours:.1f} "
                f"| {np.median(rows):.1f} | {np.quantile(rows, 0.9):.1f} | {np.median(networks):.1f} "
                f"| {second.judge()['in_interval_percent']:.0f} |"
            )
    return lines


if __name__ == "__main__":
    if sys.argv[1:2] == ["--again"]:
        _case(sys.argv[2] if len(sys.argv) > 2 else CASES[0], f"-{time.time():.0f}")
        main([])
    else:
        main(sys.argv[1:])
