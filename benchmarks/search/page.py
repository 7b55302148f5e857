"""The page docs/results/search.md and its plots, from the stored results."""

import matplotlib.pyplot as plt
import numpy as np

from benchmarks.jobs import read
from benchmarks.page import save_plot, table, write_page
from benchmarks.search import devices, fronts, queries, speed
from benchmarks.search.store import FOLDER
from benchmarks.search.tables import Floats

_SHOWN = (10, 25, 50, 100, 150)
_DEVICE_COLUMNS = {"spearman_all": ".3f", "within_10_percent": ".0f", "coverage_percent": ".0f"}
_FEW = {
    8: 90.869,
    16: 91.011,
    32: 91.486,
    48: 91.553,
    64: 91.571,
    128: 91.607,
}
"""Best rows of FLAN's search on NAS-Bench-201, CIFAR-10 validation (abdelfattah-lab/flan_nas), by queries."""


def write_search_page(seeds: range) -> None:
    """Write the page from the results stored so far."""
    introduction = """
# Search algorithms on published tables

Made by `make bench-search TABLES=DIR`; tables are read where they lie. Means over seeds, ±: standard deviation.
"""
    write_page("search", introduction, *_few(seeds), *_queries(seeds), *_fronts(), *_devices(seeds), *_speed())


def _curves(table_name: str, algorithm: str, seeds: range) -> Floats | None:
    """Return best accuracies `[seeds, queries]`; None if there are none."""
    results = read(FOLDER / "queries.json")
    keys = [queries.key(table_name, algorithm, seed) for seed in seeds]
    rows = [results[key] for key in keys if key in results]
    return np.array(rows) if rows else None


def _few(seeds: range) -> list[str]:
    curves = {name: _curves("few", name, seeds) for name in queries.FEW}
    if any(curve is None for curve in curves.values()):
        return []
    rows = [f"FLAN, best of its rows | {' | '.join(f'{value:.3f}' for value in _FEW.values())} | "]
    for name, curve in curves.items():
        assert curve is not None
        cells = " | ".join(f"{curve[:, n - 1].mean():.3f} ± {curve[:, n - 1].std():.3f}" for n in _FEW)
        n_optimal = (curve[:, -1] >= _FEW[128] - 1e-3).sum()
        rows.append(f"`bayesian`, {name} | {cells} | {n_optimal} of {len(curve)}")
    return [
        "## Few queries",
        "NAS-Bench-201, best CIFAR-10 validation accuracy in percent after so many queries. `bayesian` begins with 4 "
        "or 8 cells, the first of them the largest, and knows MACs. The optimum is 91.607.",
        table("search | " + " | ".join(map(str, _FEW)) + " | optimum by 128", rows),
    ]


def _queries(seeds: range) -> list[str]:
    sections = ["## 150 queries", "Distance of the best arch found from the best there is, in points of accuracy."]
    figure, axes = plt.subplots(1, len(queries.COMPLETE), figsize=(4 * len(queries.COMPLETE), 3.5))
    for axis, table_name in zip(axes, queries.COMPLETE, strict=True):
        rows, best = [], read(FOLDER / "queries.json").get(queries.best_key(table_name))
        for name, (_, _, batch) in queries.ALGORITHMS.items():
            curve = _curves(table_name, name, seeds)
            if curve is None or best is None:
                continue
            regret = best - curve
            axis.plot(np.arange(1, curve.shape[1] + 1), np.maximum(regret.mean(axis=0), 1e-3), label=name)
            cells = " | ".join(f"{regret[:, n - 1].mean():.3f} ± {regret[:, n - 1].std():.3f}" for n in _SHOWN)
            rows.append((regret[:, -1].mean(), f"{name} | {batch} | {len(curve)} | {cells}"))
        axis.set(title=table_name, xlabel="queries", yscale="log")
        header = "algorithm | at once | seeds | " + " | ".join(map(str, _SHOWN))
        sections += [f"**{table_name}**, the best last:", table(header, [row for _, row in sorted(rows, reverse=True)])]
    axes[0].set_ylabel("points below the best arch")
    axes[-1].legend(fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))
    save_plot(figure, "search-queries")
    order = """
The published order (NAS-Bench-101, 150 evaluations) puts random search and REINFORCE last, then ageing evolution, then
local search and Bayesian optimization. Here REINFORCE is ahead of ageing evolution on two tables: its reward is the
rank among recent archs, not the accuracy, which a few failed archs would rule, and it asks for no arch twice.
"""
    return [*sections, order, "![distance from the best arch](search-queries.svg)"]


def _fronts() -> list[str]:
    areas: dict[str, dict[str, list[float]]] = {}
    for key, area in read(FOLDER / "fronts.json").items():
        device, algorithm, _ = key.split(", ")
        areas.setdefault(device, {}).setdefault(algorithm, []).append(area)
    names = [*fronts.OURS, fronts.PYMOO]
    complete = {device: of for device, of in areas.items() if all(name in of for name in names)}
    if not complete:
        return []
    means = {name: np.array([np.mean(of[name]) for of in complete.values()]) for name in names}
    rows = [
        f"{name} | {means[name].mean():.1f} | {means[name].min():.1f} | {(means[name] > means[fronts.PYMOO]).sum()}"
        for name in names
    ]
    devices = [
        f"{device} | " + " | ".join(f"{np.mean(of[name]):.1f} ± {np.std(of[name]):.1f}" for name in names)
        for device, of in complete.items()
    ]
    n_seeds = min(len(values) for of in complete.values() for values in of.values())
    return [
        "## Accuracy and latency together",
        f"NAS-Bench-201 with each of {len(complete)} devices (latencies of HELP), {fronts.N_QUERIES} queries, "
        f"{n_seeds} or more seeds. Area that the front dominates, in percent of what all cells do; cells below "
        f"{fronts.LEAST_TOP1_PERCENT:g} % are excluded by a constraint that all algorithms are given. `bayesian` "
        "begins with 20 random cells, as pymoo does, and asks for 10 at once.",
        table(f"algorithm | mean area % | worst device | devices above {fronts.PYMOO}", rows),
        table("device | " + " | ".join(names), devices),
    ]


def _devices(seeds: range) -> list[str]:
    results, sections = read(FOLDER / "devices.json"), list[str]()
    for name, protocol in devices.PROTOCOLS.items():
        of_seeds = [results[key] for seed in seeds if (key := devices.key(name, seed)) in results]
        if not of_seeds:
            continue
        rows = []
        for method in devices.METHODS:
            values = {
                quantity: np.array([[one[method][device][quantity] for device in protocol.new] for one in of_seeds])
                for quantity in of_seeds[0][method][protocol.new[0]]
            }
            spearman = values["spearman"]
            cells = [f"{x.mean():.3f} ± {x.std():.3f}" for x in (*spearman.T, spearman.mean(axis=1))]
            others = [f"{values[one].mean():{form}}" if one in values else "" for one, form in _DEVICE_COLUMNS.items()]
            rows.append(f"{method} | {' | '.join([*cells, *others])}")
        header = " | ".join(["predicted from", *protocol.new, "mean", "all archs", "within 10 %", "in interval %"])
        seconds = np.mean([one["seconds"] for one in of_seeds])
        sections += [
            f"**{name}**: HELP's mean with 10 networks is {protocol.published}. {len(of_seeds)} seeds; {seconds:.0f} s "
            f"of one core for {len(protocol.others)} other devices and the new one.",
            table(header, rows),
        ]
    introduction = """
Spearman's correlation over archs between the 10th and the 90th percentile of latency, by the protocol of HELP, then
over all. The model chooses the networks that are measured on the new device; *drawn*: at random, as HELP does. *Within
10 %* and intervals are of all archs.
"""
    return ["## A new device from a few networks", introduction, *sections] if sections else []


def _speed() -> list[str]:
    results = read(FOLDER / "speed.json")
    if speed.FAMILY not in results:
        return []
    result = results[speed.FAMILY]
    parts = ", ".join(f"{name} {value:g}" for name, value in result["microseconds"].items())
    return [
        "## Speed",
        f"`nsga2` over `{speed.FAMILY}`, population {speed.POPULATION}, a `mlp` predictor and a latency table, one "
        f"thread: {result['archs_per_second']:,.0f} archs per second of processor time; microseconds of each: {parts}. "
        "An evolution that works as once-for-all's finder does, one arch at a time, looks at "
        f"{result['one_at_a_time_archs_per_second']:,.0f} in the same rounds.",
    ]
