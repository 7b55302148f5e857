"""Results in docs/results/training/: for each seed a JSON file of its trainings by key, and one file of costs."""

from pathlib import Path

FOLDER = Path("docs/results/training")
COSTS = FOLDER / "costs.json"


def seed_path(seed: int) -> Path:
    return FOLDER / f"seed-{seed}.json"


def phase_key(strategy: str, i: int) -> str:
    return f"{strategy}/{i}"


def supernet_key(task: str, training: str) -> str:
    return f"supernet {task}: {training}"


def alone_key(task: str, i: int) -> str:
    return f"alone {task}: {i}"
