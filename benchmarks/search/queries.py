"""How good the best arch is after some measurements: search algorithms on complete tables."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import ofa
from benchmarks.search.store import kept
from benchmarks.search.tables import Floats, Table, channel_bench_macro, nas_bench_201, nas_bench_macro
from ofa.search import create
from ofa.search.algorithm import Algorithm

N_QUERIES, N_FEW = 150, 128
COMPLETE = {
    "NAS-Bench-201": nas_bench_201,
    "NAS-Bench-Macro": nas_bench_macro,
    "Channel-Bench-Macro": channel_bench_macro,
}
"""Tables that hold every arch of their space."""
ALGORITHMS: dict[str, tuple[str, dict[str, Any], int]] = {
    "random": ("random", {}, 1),
    "reinforce, LSTM": ("reinforce", {}, 5),
    "reinforce, transformer": ("reinforce", {"policy": "transformer", "lr": 0.003}, 5),
    "nsga2": ("nsga2", {"population": 20}, 10),
    "regularized_evolution": ("regularized_evolution", {"population": 20, "tournament": 5}, 1),
    "local": ("local", {}, 1),
    "bayesian": ("bayesian", {}, 5),
}
"""By the name on the page: algorithm, settings, and archs that are asked for at once."""
FEW = {"one at a time": ("bayesian", {"initial": 4}, 1), "8 at a time": ("bayesian", {"initial": 8}, 8)}
"""The same for the comparison after few queries; MACs are known, and the largest cell is measured first."""


def measure(tables: Path, seeds: range) -> None:
    """Run every algorithm with every seed, where results are missing."""
    for table_name, of in COMPLETE.items():
        table = of(tables)
        kept("queries", best_key(table_name), partial(_rounded, table.top1_percent.max()))
        for name, (algorithm, settings, batch) in ALGORITHMS.items():
            for seed in seeds:
                run = partial(best_so_far, table, algorithm, settings, batch, N_QUERIES, seed)
                kept("queries", key(table_name, name, seed), run)
    table = nas_bench_201(tables)
    macs = np.array([0, 0, 1, 9, 0])
    encoding = replace(table.encoding, features={"macs": lambda rows: 1.0 + macs[rows].sum(axis=1)})
    with_macs, largest = replace(table, encoding=encoding), np.full((1, 6), 3)
    for name, (algorithm, settings, batch) in FEW.items():
        for seed in seeds:
            run = partial(best_so_far, with_macs, algorithm, settings | {"start": largest}, batch, N_FEW, seed)
            kept("queries", key("few", name, seed), run)


def key(table: str, algorithm: str, seed: int) -> str:
    """Return the name of a result."""
    return f"{table}, {algorithm}, seed {seed}"


def best_key(table: str) -> str:
    """Return the name of the best accuracy in a table."""
    return f"{table}, best of all archs"


def best_so_far(table: Table, algorithm: str, settings: dict[str, Any], batch: int, n: int, seed: int) -> list[float]:
    """Return the best accuracy in percent after each of `n` queries."""
    objectives = [ofa.Objective("top1_percent", maximize=True)]
    search = create(algorithm, table.encoding, objectives, rng=np.random.default_rng(seed), **settings)
    queried = query(search, table, table.top1_percent[:, None], batch, n)
    return [_rounded(best) for best in np.maximum.accumulate(table.top1_percent[queried])]


def query(search: Algorithm, table: Table, values: Floats, batch: int, n: int) -> list[int]:
    """Ask, `batch` archs at once, and tell values `[n_archs, n_columns]`; returns the positions of the first `n` archs.

    Archs that are asked for again are free. There are fewer if the search has nothing left to ask for.
    """
    queried: dict[int, None] = {}
    while len(queried) < n and len(rows := search.ask(min(batch, n - len(queried)))):
        positions = table.positions(rows)
        search.tell(rows, values[positions])
        queried |= dict.fromkeys(positions)
    return list(queried)


def _rounded(top1_percent: float) -> float:
    return round(float(top1_percent), 4)
