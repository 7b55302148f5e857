"""Archs per second and thread: NSGA-II over a predictor and a table of ofa_mobilenet_v3, two objectives."""

import time
from typing import Any

import numpy as np
import torch

import ofa
from benchmarks.search.store import kept
from ofa.cost.block_table import BlockTable
from ofa.predict import create as create_predictor
from ofa.search import create

FAMILY, POPULATION, GENERATIONS, ROUNDS = "ofa_mobilenet_v3", 2000, 50, 5
PARTS = ("children", "predictor", "table", "survivors")


def measure() -> None:
    """Measure, where the result is missing."""
    kept("speed", FAMILY, _speed)


def _speed() -> dict[str, Any]:
    """Return archs per second of processor time, and the microseconds per arch of each part, medians of some rounds."""
    torch.set_num_threads(1)
    family, rng = ofa.create_family(FAMILY), np.random.default_rng(0)
    rows = family.space.sample(300, rng)
    true = rng.normal(size=family.space.one_hot(rows).shape[1])
    predictor = create_predictor("mlp", family).fit(rows, 75 + family.space.one_hot(rows).astype(np.float64) @ true)
    block_ms: dict[Any, float] = {}
    table = BlockTable(family, lambda block, size: block_ms.setdefault((block, size), float(rng.uniform(0.1, 2))))
    objectives = [ofa.Objective("top1_percent", predictor, maximize=True), ofa.Objective("latency_ms", table)]
    table(family.space.sample(50_000, rng))  # blocks are looked up once
    rounds = []
    for _ in range(ROUNDS):
        search, seconds = create("nsga2", family, objectives, rng=rng, population=POPULATION), np.zeros(4)
        for _ in range(GENERATIONS):
            times = [time.process_time()]
            rows = search.ask(POPULATION)
            times.append(time.process_time())
            accuracy = predictor(rows)
            times.append(time.process_time())
            latency_ms = table(rows)
            times.append(time.process_time())
            search.tell(rows, np.column_stack([accuracy, latency_ms]))
            seconds += np.diff([*times, time.process_time()])
        rounds.append(seconds / search.n_told)
    median = np.median(rounds, axis=0)
    parts = dict(zip(PARTS, (1e6 * median).round(2).tolist(), strict=True))
    return {"archs_per_second": float(np.median(1 / np.sum(rounds, axis=1)).round(-2)), "microseconds": parts}
