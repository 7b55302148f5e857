"""Search spaces: choices, archs, and sets of archs as integer matrices.

A set of archs is an integer matrix `[n, n_choices]` whose entries are indices into each choice's values,
so sampling, mutation, crossover, costs and predictions are array operations over thousands of archs at
once. `Arch` is the readable view of one row. A choice of a skipped layer is *inactive*: rows hold 0
there and an `Arch` leaves it out, so equal networks have equal rows and equal archs. A choice that *follows*
another is not free: canonical rows hold, and an `Arch` shows, what the other one leads to.
"""

from __future__ import annotations

import json
from pathlib import Path

from ofa.core.errors import SpaceError
from ofa.space.arch import Arch
from ofa.space.search_space import SearchSpace


def read_archs(path: Path, space: SearchSpace) -> list[Arch]:
    """Reads a JSON list of archs (or of objects with an `arch` key) and checks each against the space.

    A run's `front.json` and `samples.json` are taken as they are.

    Raises:
        SpaceError: not readable, not such a list, or an arch outside the space.
    """
    try:
        items = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise SpaceError(f"cannot read archs from {path}: {error}") from error
    if isinstance(items, dict):
        items = items.get("front", items.get("samples", items))  # front.json, samples.json
    if isinstance(items, list):
        items = [item.get("arch", item) if isinstance(item, dict) else item for item in items]
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise SpaceError(f"{path} must hold a JSON list of archs (objects from choice name to value)")
    return [space.arch(item) for item in items]
