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

N_QUERIES, N_FEW = 150, 128
COMPLETE = {
    "NAS-Bench-201": nas_bench_201,
    "NAS-Bench-Macro": nas_bench_macro,
    "Channel-Bench-Macro": channel_bench_macro,
}
"""Tables that hold every arch of their space."""
BEST_PERCENT = {"NAS-Bench-201": 91.6067, "NAS-Bench-Macro": 93.1267, "Channel-Bench-Macro": 91.8867}
"""The best accuracy in each."""
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
        for name, (algorithm, settings, batch) in ALGORITHMS.items():
            for seed in seeds:
                run = partial(best_so_far, table, algorithm, settings, batch, N_QUERIES, seed)
                kept("queries", key(table_name, name, seed), run)
    table = nas_bench_201(tables)
    macs = np.array([0, 0, 1, 9, 0])
    known = replace(table.encoding, features={"macs": lambda rows: 1.0 + macs[rows].sum(axis=1)})
    largest = np.full((1, 6), 3)
    for name, (algorithm, settings, batch) in FEW.items():
        for seed in seeds:
            with_macs, from_largest = replace(table, encoding=known), settings | {"start": largest}
            run = partial(best_so_far, with_macs, algorithm, from_largest, batch, N_FEW, seed)
            kept("queries", key("few", name, seed), run)


def key(table: str, algorithm: str, seed: int) -> str:
    """Return the name of a result."""
    return f"{table}, {algorithm}, seed {seed}"


def best_so_far(table: Table, algorithm: str, settings: dict[str, Any], batch: int, n: int, seed: int) -> list[float]:
    """Return the best accuracy in percent after each of `n` queries; archs that are asked for again are free."""
    space = table.encoding.space
    position = {one.tobytes(): i for i, one in enumerate(space.keys(table.rows))}
    search = create(
        algorithm,
        table.encoding,
        [ofa.Objective("top1_percent", maximize=True)],
        rng=np.random.default_rng(seed),
        **settings,
    )
    measured: dict[int, float] = {}
    while len(measured) < n:
        rows = search.ask(batch)
        if not len(rows):
            break
        at = [position[one.tobytes()] for one in space.keys(rows)]
        accuracies: Floats = table.top1_percent[at]
        search.tell(rows, accuracies[:, None])
        measured |= dict(zip(at, accuracies.tolist(), strict=True))
    best: list[float] = np.maximum.accumulate(list(measured.values())[:n]).round(4).tolist()
    return best
