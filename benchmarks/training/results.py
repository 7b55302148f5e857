"""What the comparison measured: a JSON file for the costs, and one for each seed, by the names of its trainings."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

FOLDER = Path("docs/results/training")
COSTS = FOLDER / "costs.json"


def of_seed(seed: int) -> Path:
    """Where the results of a seed are."""
    return FOLDER / f"seed-{seed}.json"


def read(path: Path) -> dict[str, Any]:
    """What is there so far."""
    content: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    return content
