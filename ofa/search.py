"""Evolutionary search for the front of a search space under constraints.

NSGA-II (Deb et al., 2002) over index matrices: objectives and constraints are functions from rows
`[n, n_choices]` to floats `[n]`. The search knows nothing of networks, and its budget bounds it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ofa.errors import InfeasibleError
from ofa.space import Rows, SearchSpace

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Objective:
    """What to make small, or large if `maximize`."""

    name: str
    function: Callable[[Rows], Floats]
    maximize: bool = False


@dataclass(frozen=True)
class Constraint:
    """A value that must stay at or below a limit, such as a latency in milliseconds."""

    name: str
    function: Callable[[Rows], Floats]
    limit: float


@dataclass(frozen=True)
class Front:
    """Archs that no other arch seen beats in all objectives.

    Attributes:
        rows: `[n, n_choices]`, sorted by the first objective, each once.
        values: `[n, n_objectives]`.
        n_evaluated: how many archs were looked at.
    """

    rows: Rows
    values: Floats
    n_evaluated: int


def search(
    space: SearchSpace,
    objectives: Sequence[Objective],
    constraints: Sequence[Constraint],
    rng: np.random.Generator,
    population: int = 200,
    generations: int = 50,
    mutate_probability: float = 0.1,
    start: Rows | None = None,
) -> Front:
    """Searches for the front of the archs that meet all constraints.

    Args:
        space: where to search.
        objectives: at least one.
        constraints: may be none.
        rng: all randomness.
        population: archs per generation; half of the children are mutants, half crossovers.
        generations: how many; with `population` it bounds the archs looked at.
        mutate_probability: per choice.
        start: archs to begin with, `[n, n_choices]`, beside random ones and the ends of the space.

    Raises:
        InfeasibleError: no arch met the constraints; names the tightest value seen of each.
    """
    if not objectives:
        raise ValueError("search needs at least one objective")
    ends = space.rows([space.smallest, space.largest])
    known = ends if start is None else np.concatenate([ends, start])
    rows = space.unique(np.concatenate([known, space.sample(population, rng)]))
    n_evaluated = 0
    kept, kept_losses, kept_excess = rows[:0], np.zeros((0, len(objectives))), np.zeros(0)
    tightest = np.full(len(constraints), np.inf)
    for _ in range(generations):
        losses, excess, constrained = _evaluate(rows, objectives, constraints)
        tightest = np.minimum(tightest, constrained.min(axis=0, initial=np.inf))
        n_evaluated += len(rows)
        kept = np.concatenate([kept, rows])
        kept_losses, kept_excess = np.concatenate([kept_losses, losses]), np.concatenate([kept_excess, excess])
        survivors = _survivors(kept_losses, kept_excess, population)
        kept, kept_losses, kept_excess = kept[survivors], kept_losses[survivors], kept_excess[survivors]
        rows = _children(space, kept, population, rng, mutate_probability)
    if not (kept_excess <= 0).any():
        raise _infeasible(tightest, constraints, n_evaluated)
    on_front = (kept_excess <= 0) & non_dominated(np.where(kept_excess[:, None] <= 0, kept_losses, np.inf))
    order = np.argsort(kept_losses[on_front][:, 0], kind="stable")
    signs = np.array([-1.0 if objective.maximize else 1.0 for objective in objectives])
    return Front(kept[on_front][order], kept_losses[on_front][order] * signs, n_evaluated)


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


def _evaluate(
    rows: Rows, objectives: Sequence[Objective], constraints: Sequence[Constraint]
) -> tuple[Floats, Floats, Floats]:
    """Losses and constrained values of archs.

    Returns:
        Losses `[n, n_objectives]`, by how much (as a share of the limit) constraints are missed in all `[n]`,
        and what is constrained `[n, n_constraints]`.
    """
    losses = np.stack([(-1 if o.maximize else 1) * np.asarray(o.function(rows), float) for o in objectives], axis=1)
    excess, constrained = np.zeros(len(rows)), np.zeros((len(rows), len(constraints)))
    for i, constraint in enumerate(constraints):
        constrained[:, i] = constraint.function(rows)
        excess += np.maximum(constrained[:, i] - constraint.limit, 0) / max(abs(constraint.limit), 1e-12)
    return losses, excess, constrained


def _survivors(losses: Floats, excess: Floats, n: int) -> NDArray[np.int64]:
    """The best `n`: feasible before infeasible, then by rank of non-domination, then the least crowded."""
    feasible = np.flatnonzero(excess <= 0)
    chosen: list[int] = []
    remaining = feasible
    while len(remaining) and len(chosen) < n:
        front = remaining[non_dominated(losses[remaining])]
        if len(chosen) + len(front) > n:
            front = front[np.argsort(-_crowding(losses[front]), kind="stable")][: n - len(chosen)]
        chosen += front.tolist()
        remaining = np.setdiff1d(remaining, front)
    infeasible = np.flatnonzero(excess > 0)
    nearest = infeasible[np.argsort(excess[infeasible], kind="stable")]
    return np.array((chosen + nearest.tolist())[:n], dtype=np.int64)


def _crowding(losses: Floats) -> Floats:
    """Crowding distance: how far apart the neighbours of each point on a front are, summed over objectives."""
    distance = np.zeros(len(losses))
    for column in losses.T:
        order = np.argsort(column, kind="stable")
        span = column[order[-1]] - column[order[0]] or 1.0
        distance[order[[0, -1]]] = np.inf
        distance[order[1:-1]] += (column[order[2:]] - column[order[:-2]]) / span
    return distance


def _children(space: SearchSpace, parents: Rows, n: int, rng: np.random.Generator, probability: float) -> Rows:
    mothers, fathers = parents[rng.integers(len(parents), size=n)], parents[rng.integers(len(parents), size=n)]
    crossed = space.crossover(mothers[: n // 2], fathers[: n // 2], rng)
    mutants = space.mutate(mothers[n // 2 :], rng, probability)
    children = space.unique(np.concatenate([parents, crossed, mutants]))
    return children[len(parents) :]  # parents come first and are unique, so this leaves what is new


def _infeasible(tightest: Floats, constraints: Sequence[Constraint], n_evaluated: int) -> InfeasibleError:
    said = "; ".join(
        f"{c.name} at most {c.limit:g} was asked, the tightest seen is {value:.4g}"
        for c, value in zip(constraints, tightest, strict=True)
    )
    return InfeasibleError(f"no arch of {n_evaluated} meets the constraints: {said}; raise the limit")
