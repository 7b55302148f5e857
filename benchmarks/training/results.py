"""Results of the trainings in docs/results/training/: a JSON file per seed, by name of training, and one of costs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

FOLDER = Path("docs/results/training")
COSTS = FOLDER / "costs.json"


def seed_path(seed: int) -> Path:
    """Return the file with the results of a seed."""
    return FOLDER / f"seed-{seed}.json"


def read(path: Path) -> dict[str, Any]:
    """Return the results in a file by name of training; none if there is no file yet."""
    content: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    return content


def phase_key(strategy: str, i: int) -> str:
    """Return the key of a phase's cost."""
    return f"{strategy}/{i}"


def supernet_key(task: str, training: str) -> str:
    """Return the key of a supernet's result."""
    return f"supernet {task}: {training}"


def alone_key(task: str, i: int) -> str:
    """Return the key of the result of a network trained alone."""
    return f"alone {task}: {i}"
