"""Results in docs/results/inherited/: for each task a file of networks trained alone, and one of supernets."""

from pathlib import Path

import numpy as np

from benchmarks.agreement import Floats
from benchmarks.jobs import read

FOLDER = Path("docs/results/inherited")
COSTS = FOLDER / "costs.json"
"""Processor time of trainings, relative to the sandwich's."""


GRADIENTS = FOLDER / "gradients.json"
"""Cosines between gradients of archs, by task."""


def alone_path(task: str) -> Path:
    return FOLDER / f"{task}-alone.json"


def supernets_path(task: str) -> Path:
    return FOLDER / f"{task}-supernets.json"


def finetuned_path(task: str) -> Path:
    return FOLDER / f"{task}-finetuned.json"


def finetuned_key(training: str, arch: int, epochs: int, seed: int) -> str:
    return f"{training}, arch {arch}, {epochs} epochs, seed {seed}"


def cost_key(task: str, training: str) -> str:
    return f"{task}: {training}"


def alone_key(arch: int, seed: int) -> str:
    return f"arch {arch}, seed {seed}"


def supernet_key(training: str, seed: int) -> str:
    return f"{training}, seed {seed}"


def alone_percent(task: str, seeds: range, n_archs: int, split: str = "test") -> Floats:
    """Return accuracies `[seeds with any, archs]` of the first archs trained alone; NaN where one was not yet."""
    results = read(alone_path(task))
    keys = [[alone_key(arch, seed) for arch in range(n_archs)] for seed in seeds]
    rows = [[results.get(key, {}).get(split, np.nan) for key in row] for row in keys]
    every = np.array(rows, dtype=np.float64).reshape(len(rows), n_archs)
    kept: Floats = every[~np.isnan(every).all(axis=1)]
    return kept


def inherited_percent(task: str, training: str, seeds: range, split: str = "test") -> Floats:
    """Return accuracies `[seeds scored on the split, archs]` of the subnets of a training."""
    results = read(supernets_path(task))
    trained = [results[key] for key in (supernet_key(training, seed) for seed in seeds) if key in results]
    rows = [[one[split] for one in archs] for archs in trained if all(split in one for one in archs)]
    return np.array(rows) if rows else np.empty((0, 0))


def finetuned(task: str, training: str, arch: int, epochs: int, seeds: range) -> dict[int, dict[str, float]]:
    """Return accuracies in percent by split, and processor `minutes`, of a finetuned subnet of a training, by seed."""
    results = read(finetuned_path(task))
    keys = {seed: finetuned_key(training, arch, epochs, seed) for seed in seeds}
    return {seed: results[key] for seed, key in keys.items() if key in results}
