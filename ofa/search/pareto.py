"""Evolutionary search for the front of a search space under constraints.

NSGA-II (Deb et al., 2002) over index matrices: objectives and constraints are functions from rows
`[n, n_choices]` to floats `[n]`. The search knows nothing of networks, and its budget bounds it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def non_dominated(losses: Floats) -> NDArray[np.bool_]:
    """Which points no other point beats: at most as large everywhere and smaller somewhere.

    Args:
        losses: `[n, n_objectives]`, all to be made small, without NaN. Equal points do not beat each other.
    """
    keep = np.ones(len(losses), dtype=bool)
    for start in range(0, len(losses), 256):  # blocks bound the memory
        some = losses[start : start + 256, None]  # [block, 1, objectives] against all [n, objectives]
        keep[start : start + 256] = ~(np.all(losses <= some, axis=2) & np.any(losses < some, axis=2)).any(axis=1)
    return keep


def hypervolume(losses: Floats, reference: tuple[float, float]) -> float:
    """The area that points dominate up to a reference point; two objectives, both to be made small."""
    points = losses[(losses < np.array(reference)).all(axis=1)]
    points = points[np.lexsort((points[:, 1], points[:, 0]))]
    area, floor = 0.0, reference[1]
    for x, y in points:
        if y < floor:
            area += (reference[0] - x) * (floor - y)
            floor = y
    return float(area)


def crowding_distance(losses: Floats) -> Floats:
    """Crowding distance: how far apart the neighbors of each point on a front are, summed over objectives."""
    distance = np.zeros(len(losses))
    for column in losses.T:
        order = np.argsort(column, kind="stable")
        span = column[order[-1]] - column[order[0]] or 1.0
        distance[order[[0, -1]]] = np.inf
        distance[order[1:-1]] += (column[order[2:]] - column[order[:-2]]) / span
    return distance
