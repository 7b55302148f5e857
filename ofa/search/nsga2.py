"""Evolutionary search for the front of a search space under constraints.

NSGA-II (Deb et al., 2002) over index matrices: objectives and constraints are functions from rows
`[n, n_choices]` to floats `[n]`. The search knows nothing of networks, and its budget bounds it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ofa.core.errors import InfeasibleError
from ofa.search.pareto import Floats, crowding_distance, non_dominated
from ofa.search.problem import Constraint, Front, Objective
from ofa.space.arch import Rows
from ofa.space.search_space import SearchSpace


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
            front = front[np.argsort(-crowding_distance(losses[front]), kind="stable")][: n - len(chosen)]
        chosen += front.tolist()
        remaining = np.setdiff1d(remaining, front)
    infeasible = np.flatnonzero(excess > 0)
    nearest = infeasible[np.argsort(excess[infeasible], kind="stable")]
    return np.array((chosen + nearest.tolist())[:n], dtype=np.int64)


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
