"""A search over measurements: the algorithm asks for archs and is told the accuracies that these have (`over`)."""

from collections.abc import Callable, Mapping

import numpy as np

from ofa.pipeline.accuracy_store import Samples, denoised
from ofa.pipeline.choose import ROUNDING
from ofa.pipeline.costs import CostFunction
from ofa.pipeline.target import Target
from ofa.search.algorithm import create, with_population
from ofa.search.problem import Constraint, Objective
from ofa.space.arch import Arch


def search_measurements(
    target: Target,
    costs: Mapping[str, CostFunction],
    accuracies: Mapping[str, Samples],
    precision: str,
    add: Callable[[str, list[Arch]], None],
    rng: np.random.Generator,
) -> int:
    """Let the recipe's algorithm ask for `verify` archs in each of its rounds, and measure these.

    It is told first what is measured already. Costs that all of the target's limits bound are constraints, each at its
    loosest limit. The same generator and accuracies lead to the same archs, so that a stopped search goes on.

    Args:
        target: whose objective is traded for accuracy.
        costs: of the target in the precision.
        accuracies: measured archs by precision.
        precision: of the levels.
        add: measures archs in a precision and adds them to the accuracies.
        rng: of everything that the algorithm draws.

    Returns:
        The number of archs that it was told.

    Raises:
        InfeasibleError: no arch that was measured meets the constraints.
    """
    space, config, name = target.run.family.space, target.recipe.search, target.config.objective
    limits = [{str(cost): limit for cost, limit in one.items()} for one in target.config.limits or ()]
    in_all = [cost for cost in costs if limits and all(cost in one for one in limits)]
    constraints = [Constraint(cost, limit=ROUNDING * max(one[cost] for one in limits)) for cost in in_all]
    settings = with_population(config.algorithm, config.settings, config.verify)
    objectives = [Objective(name), Objective("top1_percent", maximize=True)]
    algorithm = create(config.algorithm, target.run.family, objectives, constraints, rng=rng, **settings)

    def tell(archs: list[Arch]) -> None:
        known, rows = accuracies[precision], space.rows(archs)
        top1_percent = dict(zip(known, denoised(target.run, known.values()), strict=True))
        of_archs = np.array([top1_percent[arch] for arch in archs])
        algorithm.tell(rows, np.stack([costs[name](rows), of_archs, *(costs[cost](rows) for cost in in_all)], axis=1))

    tell(list(accuracies[precision]))
    for _ in range(config.rounds):
        archs = [space.decode(row) for row in algorithm.ask(config.verify)]
        if not archs:  # all archs of a small space are measured
            break
        add(precision, archs)
        tell(archs)
    algorithm.front()
    return algorithm.n_told
