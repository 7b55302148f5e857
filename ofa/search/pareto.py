"""Pareto fronts of points whose objectives are all minimized."""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_BLOCK = 256  # points that are compared with all others at once, which bounds the memory


def non_dominated(losses: Floats) -> NDArray[np.bool_]:
    """Return the mask `[n]` of the points `[n, n_objectives]`, without NaN, that no other point dominates.

    A point dominates another if it is at most as large in every objective and smaller in at least one, so equal points
    do not dominate each other.
    """
    mask = np.ones(len(losses), dtype=bool)
    for start in range(0, len(losses), _BLOCK):
        block = losses[start : start + _BLOCK, None]  # [block, 1, n_objectives]
        dominates = np.all(losses <= block, axis=2) & np.any(losses < block, axis=2)  # [block, n]
        mask[start : start + _BLOCK] = ~dominates.any(axis=1)
    return mask


def crowding_distance(losses: Floats) -> Floats:
    """Return the crowding distance `[n]` of the finite points `[n, n_objectives]` of a front (Deb et al., 2002, III.B).

    It sums, over the objectives, the distance between the two neighbors of a point as a share of the front's extent.
    The ends of the front are infinitely far from others. There must be at least one point.
    """
    distance = np.zeros(len(losses))
    for column in losses.T:
        order = np.argsort(column, kind="stable")
        extent = column[order[-1]] - column[order[0]] or 1.0
        distance[order[[0, -1]]] = np.inf
        distance[order[1:-1]] += (column[order[2:]] - column[order[:-2]]) / extent
    return distance


def hypervolume(losses: Floats, reference: tuple[float, float]) -> float:
    """Return the area that points of two objectives `[n, 2]` dominate up to a reference point."""
    points = losses[(losses < np.array(reference)).all(axis=1)]
    points = points[np.lexsort((points[:, 1], points[:, 0]))]
    area, lowest = 0.0, reference[1]
    for x, y in points:
        if y < lowest:
            area += (reference[0] - x) * (lowest - y)
            lowest = y
    return float(area)
