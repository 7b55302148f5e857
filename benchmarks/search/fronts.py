"""Accuracy and latency together: the front after 100 measurements, on 27 devices, against pymoo's NSGA-II."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from pymoo.algorithms.moo.nsga2 import NSGA2
from pymoo.core.problem import Problem
from pymoo.operators.crossover.sbx import SBX
from pymoo.operators.mutation.pm import PM
from pymoo.operators.repair.rounding import RoundingRepair
from pymoo.operators.sampling.rnd import IntegerRandomSampling
from pymoo.optimize import minimize

import ofa
from benchmarks.search.queries import query
from benchmarks.search.store import kept
from benchmarks.search.tables import Floats, Table, nas_bench_201
from ofa.search import create
from ofa.search.pareto import hypervolume

N_QUERIES, BATCH = 100, 10
LEAST_TOP1_PERCENT = 80.0
"""A constraint that all algorithms are given, as most other cells never learned, and the reference of the area."""
OURS: dict[str, dict[str, Any]] = {"bayesian": {"initial": 20}, "nsga2": {"population": 20}, "local": {}, "random": {}}
PYMOO = "pymoo's NSGA-II"


def measure(tables: Path, seeds: range) -> None:
    """Search on every device, where results are missing."""
    table, content = nas_bench_201(tables), np.load(tables / "HayeonLee_HELP/nb201_latency.npz")
    for seed in seeds:
        for device, latency_ms in zip(content["devices"].tolist(), content["latency"].T.astype(float), strict=True):
            losses = np.stack([-table.top1_percent, latency_ms], axis=1)
            for name in OURS:
                kept("fronts", key(device, name, seed), partial(_ours, table, losses, name, seed))
            kept("fronts", key(device, PYMOO, seed), partial(_pymoo, table, losses, seed))


def key(device: str, algorithm: str, seed: int) -> str:
    """Return the name of a result."""
    return f"{device}, {algorithm}, seed {seed}"


def _area_percent(losses: Floats, of_all: Floats) -> float:
    """Return the area that a front dominates, as a share of what all archs dominate."""
    reference = (-LEAST_TOP1_PERCENT, float(of_all[:, 1].max()))
    return 100 * hypervolume(losses, reference) / hypervolume(of_all, reference)


def _ours(table: Table, losses: Floats, algorithm: str, seed: int) -> float:
    objectives = [ofa.Objective("top1_percent", maximize=True), ofa.Objective("latency_ms")]
    limit = ofa.Constraint("error_percent", limit=100 - LEAST_TOP1_PERCENT)
    search = create(algorithm, table.encoding, objectives, [limit], rng=np.random.default_rng(seed), **OURS[algorithm])
    values = np.column_stack([losses * [-1, 1], 100 + losses[:, 0]])
    return _area_percent(losses[query(search, table, values, BATCH, N_QUERIES)], losses)


def _pymoo(table: Table, losses: Floats, seed: int) -> float:
    queried: dict[int, None] = {}

    class Cells(Problem):  # type: ignore[misc]  # pymoo is not typed
        def __init__(self) -> None:
            super().__init__(n_var=6, n_obj=2, n_ieq_constr=1, xl=0, xu=4, vtype=int)

        def _evaluate(self, x: Floats, out: dict[str, Floats]) -> None:
            positions = table.positions(x.astype(np.int64))
            queried.update(dict.fromkeys(positions))
            out["F"], out["G"] = losses[positions], losses[positions, :1] + LEAST_TOP1_PERCENT

    whole_numbers = {"vtype": float, "repair": RoundingRepair()}
    algorithm = NSGA2(
        pop_size=20,
        sampling=IntegerRandomSampling(),
        crossover=SBX(prob=1.0, eta=3.0, **whole_numbers),
        mutation=PM(prob=1.0, eta=3.0, **whole_numbers),
        eliminate_duplicates=True,
    )
    minimize(Cells(), algorithm, ("n_eval", 4 * N_QUERIES), seed=seed)
    return _area_percent(losses[list(queried)[:N_QUERIES]], losses)
