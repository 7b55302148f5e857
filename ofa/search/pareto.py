"""Pareto fronts of points whose objectives are all minimized."""

from bisect import bisect_right
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def non_dominated(losses: Floats) -> NDArray[np.bool_]:
    """Return the mask `[n]` of the points `[n, n_objectives]`, without NaN, that no other point dominates.

    A point dominates another if it is at most as large in every objective and smaller in at least one, so equal points
    do not dominate each other.
    """
    mask = np.ones(len(losses), dtype=bool)
    if losses.shape[1] <= 2:
        order = np.lexsort(losses.T[::-1])
        mask[order] = _non_dominated_sorted(losses[order])
        return mask
    # Points with small sums come first: each that is left is on the front, and takes away those that it dominates.
    left = np.argsort(losses.sum(axis=1), kind="stable")
    n_kept = 0
    while n_kept < len(left):
        point = losses[left[n_kept]]
        dominated = (losses[left] >= point).all(axis=1) & (losses[left] > point).any(axis=1)
        n_kept += 1 - int(dominated[:n_kept].sum())
        left = left[~dominated]
    mask[:] = False
    mask[left] = True
    return mask


def front_numbers(losses: Floats, n: int | None = None) -> NDArray[np.int64]:
    """Return the front `[n_points]` of each point `[n_points, n_objectives]`: 0 for those that no other dominates.

    Front k holds the points that only points of fronts before it dominate. With `n`, fronts after the first ones that
    hold so many points may share a number.
    """
    number = np.zeros(len(losses), dtype=np.int64)
    if losses.shape[1] <= 2:
        order = np.lexsort(losses.T[::-1])
        number[order] = _front_numbers_sorted(losses[order])
        return number
    remaining, front, n = np.arange(len(losses)), 0, len(losses) if n is None else n
    while len(remaining) and len(losses) - len(remaining) < n:
        on_front = non_dominated(losses[remaining])
        number[remaining] = np.where(on_front, front, front + 1)
        remaining, front = remaining[~on_front], front + 1
    return number


def best_first(losses: Floats, excess: Floats, n: int | None = None) -> NDArray[np.int64]:
    """Return the positions of the `n` best archs, all by default, best first, by losses `[n_archs, n_objectives]`.

    Feasible archs, whose sum of violations `excess` `[n_archs]` is 0, come first, front by front, and the least crowded
    of a front before others. The rest follow by `excess`.
    """
    feasible, infeasible = np.flatnonzero(excess <= 0), np.flatnonzero(excess > 0)
    front = front_numbers(losses[feasible], n)
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
        value, first = column[order], _differs_from_previous(front[order, None])
        last = np.append(first[1:], True)
        extent = (value[last] - value[first])[np.cumsum(first) - 1]
        gap = np.full(len(value), np.inf)
        gap[1:-1] = (value[2:] - value[:-2]) / np.where(extent > 0, extent, 1.0)[1:-1]
        distance[order] += np.where(first | last, np.inf, gap)
    return distance


def hypervolume(losses: Floats, reference: tuple[float, float]) -> float:
    """Return the area that points of two objectives `[n, 2]` dominate up to a reference point."""
    points = losses[(losses < np.array(reference)).all(axis=1)]
    points = points[np.lexsort((points[:, 1], points[:, 0]))]
    lowest = np.minimum.accumulate(np.concatenate([[reference[1]], points[:, 1]]))
    return float(((reference[0] - points[:, 0]) * (lowest[:-1] - lowest[1:])).sum())


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


def _non_dominated_sorted(losses: Floats) -> NDArray[np.bool_]:
    """Return `non_dominated` of points of one or two objectives that are sorted by the first, then by the second."""
    new = _differs_from_previous(losses)
    last = losses[new, -1]  # of different points: one that comes later is dominated unless it is smaller here
    mask = np.ones(len(last), dtype=bool)
    mask[1:] = last[1:] < np.minimum.accumulate(last)[:-1]
    of_all: NDArray[np.bool_] = mask[np.cumsum(new) - 1]
    return of_all


def _front_numbers_sorted(losses: Floats) -> NDArray[np.int64]:
    """Return the fronts of points that are sorted as for `_non_dominated_sorted`, in one pass."""
    new = _differs_from_previous(losses)
    lowest: list[float] = []  # last objective of the newest point of each front, ascending
    numbers = []
    for last in losses[new, -1].tolist():
        front = bisect_right(lowest, last) if losses.shape[1] == 2 else len(lowest)
        lowest[front : front + 1] = [last]
        numbers.append(front)
    of_all: NDArray[np.int64] = np.array(numbers, dtype=np.int64)[np.cumsum(new) - 1]
    return of_all


def _differs_from_previous(points: NDArray[Any]) -> NDArray[np.bool_]:
    """Return whether each of some points `[n, k]` differs from the one before it, as the first does."""
    new = np.ones(len(points), dtype=bool)
    new[1:] = (points[1:] != points[:-1]).any(axis=1)
    return new
