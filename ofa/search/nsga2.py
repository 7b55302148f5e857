"""NSGA-II (Deb et al., 2002) over index matrices."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ofa.core.errors import InfeasibleError, SearchError
from ofa.search.pareto import Floats, crowding_distance, non_dominated
from ofa.search.problem import Constraint, Front, Objective, evaluate, violation
from ofa.space.arch import Rows
from ofa.space.search_space import SearchSpace


def search(
    space: SearchSpace,
    objectives: Sequence[Objective],
    constraints: Sequence[Constraint],
    rng: np.random.Generator,
    *,
    population: int = 200,
    generations: int = 50,
    mutate_probability: float = 0.1,
    start: Rows | None = None,
) -> Front:
    """Search for the front of the archs that meet all constraints.

    The first population are the smallest and the largest arch, `start` `[n, n_choices]`, and random archs. In each
    generation, `population` archs survive and have as many children; a mutant differs from its parent in a choice with
    `mutate_probability`. Unlike in the paper, parents are drawn uniformly from the survivors.

    Raises:
        InfeasibleError: no arch meets the constraints; the message names the tightest value seen of each.
        SearchError: there is no objective, a setting is out of range, or an objective or constraint gives NaN.
        SpaceError: `start` does not belong to the space.
    """
    if not objectives:
        raise SearchError("a search needs at least one objective")
    _check_range("population", population, 1, 10_000)
    _check_range("generations", generations, 1, 10_000)
    _check_range("mutate_probability", mutate_probability, 0, 1)
    ends = space.rows([space.smallest, space.largest])
    first = ends if start is None else np.concatenate([ends, space.check_rows(start)])
    children = space.unique(np.concatenate([first, space.sample(population, rng)]))
    rows, losses, excess = children[:0], np.zeros((0, len(objectives))), np.zeros(0)
    n_evaluated, tightest = 0, np.full(len(constraints), np.inf)
    signs = np.array([-1.0 if objective.maximize else 1.0 for objective in objectives])
    for _ in range(generations):
        children_excess = np.zeros(len(children))
        for i, constraint in enumerate(constraints):
            values = evaluate(constraint, children)
            tightest[i] = values.min(initial=tightest[i])
            children_excess += violation(constraint, values)
        children_losses = np.stack([evaluate(objective, children) for objective in objectives], axis=1) * signs
        n_evaluated += len(children)
        rows, losses = np.concatenate([rows, children]), np.concatenate([losses, children_losses])
        excess = np.concatenate([excess, children_excess])
        survivors = select_survivors(losses, excess, population)
        rows, losses, excess = rows[survivors], losses[survivors], excess[survivors]
        children = breed(space, rows, rng, n=population, mutate_probability=mutate_probability)
    feasible = np.flatnonzero(excess <= 0)
    if not len(feasible):
        missed = "; ".join(
            f"{constraint.name} must be at most {constraint.limit:g}, the tightest seen is {value:.4g}"
            for constraint, value in zip(constraints, tightest, strict=True)
        )
        raise InfeasibleError(f"no arch of {n_evaluated} meets the constraints: {missed}; raise the limit")
    front = feasible[non_dominated(losses[feasible])]
    front = front[np.argsort(losses[front, 0], kind="stable")]
    return Front(rows[front], losses[front] * signs, n_evaluated)


def select_survivors(losses: Floats, excess: Floats, n: int) -> NDArray[np.int64]:
    """Return the positions of the `n` best archs, best first, by losses `[n_archs, n_objectives]`.

    Feasible archs, whose sum of violations `excess` `[n_archs]` is 0, come first, front by front (the archs that only
    archs of earlier fronts dominate); of the last front, the least crowded survive. Others are ordered by `excess`.
    """
    remaining, infeasible = np.flatnonzero(excess <= 0), np.flatnonzero(excess > 0)
    survivors: list[int] = []
    while len(remaining) and len(survivors) < n:
        on_front = non_dominated(losses[remaining])
        front, remaining = remaining[on_front], remaining[~on_front]
        if len(front) > n - len(survivors):
            front = front[np.argsort(-crowding_distance(losses[front]), kind="stable")]
        survivors += front.tolist()
    by_excess = infeasible[np.argsort(excess[infeasible], kind="stable")]
    return np.array([*survivors, *by_excess.tolist()][:n], dtype=np.int64)


def breed(space: SearchSpace, parents: Rows, rng: np.random.Generator, *, n: int, mutate_probability: float) -> Rows:
    """Return the different archs among `n` children that are not parents; half are crossovers, half mutants.

    The parents `[n_parents, n_choices]` are different canonical rows.
    """
    mothers, fathers = parents[rng.integers(len(parents), size=n)], parents[rng.integers(len(parents), size=n)]
    crossed = space.crossover(mothers[: n // 2], fathers[: n // 2], rng)
    mutants = space.mutate(mothers[n // 2 :], rng, mutate_probability)
    different = space.unique(np.concatenate([parents, crossed, mutants]))
    return different[len(parents) :]  # the parents come first


def _check_range(name: str, value: float, least: int, most: int) -> None:
    if not least <= value <= most:
        raise SearchError(f"{name} = {value} is not allowed; choose from {least} to {most}")
