"""How well predictors rank archs of published tables that they have not seen, and what earlier data save."""

import time
from collections.abc import Callable
from functools import cache, partial
from itertools import product
from pathlib import Path

import numpy as np

from benchmarks.search.store import kept
from benchmarks.search.tables import TABLES, Table, nas_bench_201
from ofa.core.plugins import plugin_names
from ofa.predict import create, judge
from ofa.predict.predictor import GROUP

SIZES = {
    "NAS-Bench-201": (78, 156, 469),
    "NAS-Bench-Macro": (50, 100, 300),
    "Channel-Bench-Macro": (50, 100, 300),
    "OFA-MobileNetV3": (100, 300),
}
"""Archs that a predictor is fitted to, by table."""
NAMES = plugin_names(GROUP)
SLOW, N_SLOW_SEEDS = ("gcn", "transformer"), 3
"""Predictors that take a minute, and for how many seeds they are judged."""
N_JUDGED = 3000
N_EARLIER, STARTED_SIZES = 300, (20, 50, 100)
DATA = {"CIFAR-100": 2, "ImageNet16-120": 4}
"""Other data than the earlier CIFAR-10, by columns of NAS-Bench-201's accuracies."""


def measure(tables: Path, seeds: range) -> None:
    """Fit and judge predictors, where results are missing."""
    table = cache(lambda name: TABLES[name](tables))
    for seed, (name, sizes), predictor in product(seeds, SIZES.items(), NAMES):
        if predictor not in SLOW or seed < N_SLOW_SEEDS:
            for n in sizes:
                judged = partial(_judged, table, name, predictor, n, seed)
                kept("predictors", key(name, predictor, n, seed), judged)
    for seed, data in product(seeds, DATA):
        kept("predictors", started_key(data, seed), partial(_started, tables, data, seed))


def key(table: str, predictor: str, n_archs: int, seed: int) -> str:
    """Return the name of a result."""
    return f"{table}, {predictor}, {n_archs} archs, seed {seed}"


def started_key(data: str, seed: int) -> str:
    """Return the name of a result with and without earlier data."""
    return f"{data} after CIFAR-10, seed {seed}"


def _judged(table: Callable[[str], Table], name: str, predictor: str, n_archs: int, seed: int) -> dict[str, float]:
    of = table(name)
    order = np.random.default_rng(seed).permutation(len(of.rows))
    seen, judged, start = order[:n_archs], order[n_archs:][:N_JUDGED], time.process_time()
    fitted = create(predictor, of.encoding, seed=seed).fit(of.rows[seen], of.top1_percent[seen])
    seconds = time.process_time() - start
    metrics = judge(fitted.predict(of.rows[judged]), of.top1_percent[judged])
    return {
        "kendall_tau": metrics.kendall_tau,
        "coverage_percent": metrics.coverage_percent,
        "regret_percent": metrics.regret_percent,
        "seconds": round(seconds, 1),
    }


def _started(tables: Path, data: str, seed: int) -> dict[str, list[float]]:
    """Return Kendall's tau by the number of archs, of `gp` alone and of one that starts from CIFAR-10."""
    table, content = nas_bench_201(tables), np.load(tables / "mingkai-zheng_GENIUS/nb201_val_test_200ep.npz")
    top1_percent, rng = content["acc"][:, DATA[data]].astype(np.float64), np.random.default_rng(seed)
    seen = rng.permutation(len(table.rows))[:N_EARLIER]
    earlier = create("gp", table.encoding, seed=seed).fit(table.rows[seen], table.top1_percent[seen])
    order, taus = rng.permutation(len(table.rows)), dict[str, list[float]]()
    judged = order[max(STARTED_SIZES) :][:N_JUDGED]
    for name, start_from in (("alone", []), ("started", [earlier])):
        taus[name] = []
        for n in STARTED_SIZES:
            predictor = create("gp", table.encoding, start_from=start_from, seed=seed)
            predictor.fit(table.rows[order[:n]], top1_percent[order[:n]])
            prediction = predictor.predict(table.rows[judged])
            taus[name].append(judge(prediction, top1_percent[judged]).kendall_tau)
    return taus
