"""Pareto fronts of points whose objectives are all minimized."""

import moocore
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def non_dominated(losses: Floats) -> NDArray[np.bool_]:
    """Return the mask `[n]` of the points `[n, n_objectives]`, without NaN, that no other point dominates.

    A point dominates another if it is at most as large in every objective and smaller in at least one, so equal points
    do not dominate each other.
    """
    mask: NDArray[np.bool_] = moocore.is_nondominated(losses, keep_weakly=True)
    return mask


def front_numbers(losses: Floats) -> NDArray[np.int64]:
    """Return the front `[n_points]` of each point `[n_points, n_objectives]`: 0 for those that no other dominates.

    Front k holds the points that only points of fronts before it dominate.
    """
    numbers: NDArray[np.int64] = moocore.pareto_rank(losses).astype(np.int64)
    return numbers


def best_first(losses: Floats, excess: Floats, n: int | None = None) -> NDArray[np.int64]:
    """Return the positions of the `n` best archs, all by default, best first, by losses `[n_archs, n_objectives]`.

    Feasible archs, whose sum of violations `excess` `[n_archs]` is 0, come first, front by front, and the least crowded
    of a front before others. The rest follow by `excess`.
    """
    feasible, infeasible = np.flatnonzero(excess <= 0), np.flatnonzero(excess > 0)
    front = front_numbers(losses[feasible])
    if n is not None and n < len(feasible):
        needed = front <= np.partition(front, n)[n]
        feasible, front = feasible[needed], front[needed]
    order = np.lexsort((-crowding_distance(losses[feasible], front), front))
    by_excess = infeasible[np.argsort(excess[infeasible], kind="stable")]
    return np.concatenate([feasible[order], by_excess])[:n]


def crowding_distance(losses: Floats, front: NDArray[np.int64]) -> Floats:
    """Return the crowding distances `[n]` of finite points `[n, n_objectives]` on fronts (Deb et al., 2002, III.B).

    It sums, over the objectives, the distance between the two neighbors of a point as a share of the front's extent.
    The ends of a front are infinitely far from others.
    """
    distance = np.zeros(len(losses))
    if not len(losses):
        return distance
    for column in losses.T:
        order = np.lexsort((column, front))
        value, first = column[order], np.diff(front[order], prepend=-1) != 0
        last = np.append(first[1:], True)
        extent = (value[last] - value[first])[np.cumsum(first) - 1]
        gap = np.full(len(value), np.inf)
        gap[1:-1] = (value[2:] - value[:-2]) / np.where(extent > 0, extent, 1.0)[1:-1]
        distance[order] += np.where(first | last, np.inf, gap)
    return distance


def hypervolume(losses: Floats, reference: tuple[float, float]) -> float:
    """Return the area that points of two objectives `[n, 2]` dominate up to a reference point."""
    return float(moocore.hypervolume(losses, ref=reference))


def hypervolume_gain(points: Floats, front: Floats, reference: tuple[float, float]) -> Floats:
    """Return the area `[n]` that each of some points `[n, 2]` adds, alone, to what a front `[m, 2]` dominates."""
    front = front[(front < np.array(reference)).all(axis=1)]
    front = front[non_dominated(front)]
    front = front[np.argsort(front[:, 0], kind="stable")]
    # Left to right, the front is a staircase: between two steps, everything above the lower height is dominated.
    left = np.concatenate([[-np.inf], front[:, 0]])
    right = np.concatenate([front[:, 0], [reference[0]]])
    height = np.concatenate([[reference[1]], front[:, 1]])
    width = np.clip(right - np.maximum(left, points[:, :1]), 0, None)
    gain: Floats = (width * np.clip(height - points[:, 1:], 0, None)).sum(axis=1)
    return gain
