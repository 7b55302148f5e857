"""Archs per second and thread: NSGA-II over a predictor and a table of ofa_mobilenet_v3, two objectives.

Beside it, in the same rounds, an evolution that works as once-for-all's finder does (arXiv 1908.09791, 3.4): archs are
made and priced one at a time, in Python, and their accuracies predicted a generation at a time.
"""

import time
from typing import Any

import numpy as np
import torch

import ofa
from benchmarks.search.store import kept
from ofa.cost.block_table import BlockTable
from ofa.predict import create as create_predictor
from ofa.search import create
from ofa.space.arch import Rows
from ofa.space.search_space import SearchSpace

FAMILY, POPULATION, GENERATIONS, ROUNDS = "ofa_mobilenet_v3", 2000, 50, 5
FINDER: dict[str, Any] = {"population": 100, "generations": 10, "parents": 25, "mutate_probability": 0.1}
"""Once-for-all's settings, but for the generations, of which it has 500."""
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
    rounds, one_at_a_time = [], []
    for _ in range(ROUNDS):
        one_at_a_time.append(_one_at_a_time(family, predictor, block_ms, rng))
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
    return {
        "archs_per_second": float(np.median(1 / np.sum(rounds, axis=1)).round(-2)),
        "microseconds": parts,
        "one_at_a_time_archs_per_second": float(np.median(one_at_a_time).round()),
    }


def _one_at_a_time(family: ofa.Family, predictor: Any, block_ms: dict[Any, float], rng: np.random.Generator) -> float:
    """Return the archs per second of an evolution within a latency limit that makes archs one at a time."""
    space, start, n_archs = family.space, time.process_time(), 0
    limit_ms = float(np.median([_latency_ms(family, row, block_ms) for row in space.sample(50, rng)]))
    parents: list[Any] = []
    for _ in range(FINDER["generations"]):
        archs: list[Any] = []
        while len(archs) < FINDER["population"]:
            if not parents:
                row = space.sample(1, rng)[0]
            elif len(archs) < FINDER["population"] // 2:
                row = _mutated(space, parents[rng.integers(len(parents))], rng)
            else:
                mother, father = (parents[rng.integers(len(parents))] for _ in range(2))
                row = np.array([pair[rng.integers(2)] for pair in zip(mother, father, strict=True)])
            n_archs += 1
            if _latency_ms(family, row, block_ms) <= limit_ms:
                archs.append(row)
        order = np.argsort(-predictor(space.canonical(np.stack(archs))), kind="stable")
        parents = [archs[i] for i in order[: FINDER["parents"]]]
    return n_archs / (time.process_time() - start)


def _mutated(space: SearchSpace, parent: Rows, rng: np.random.Generator) -> Rows:
    row = parent.copy()
    for column, choice in enumerate(space.choices):
        if rng.random() < FINDER["mutate_probability"]:
            row[column] = rng.integers(len(choice.values))
    return row


def _latency_ms(family: ofa.Family, row: Rows, block_ms: dict[Any, float]) -> float:
    """Return the sum of the latencies of the blocks, each looked up in a dictionary."""
    resolution = family.resolutions[row[family.space.column("resolution")]]
    blocks = family.blocks(row)
    return sum(block_ms.get((block, slot.size(resolution)), 1.0) for slot, block in blocks if block is not None)
