"""Stage `search`: rounds of searching the predicted front, measuring it, and refitting the predictor.

With `search.over: measurements`, the algorithm asks for the archs that are measured, and no predictor guides it.

A predictor fitted to random archs is too optimistic where the search goes: it has seen few archs there, and the search
exploits its errors. Measured archs of the front correct that (as in arXiv 2202.12954). Where a target leaves its
precision open, a candidate is an arch in a precision.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from ofa.core.errors import InfeasibleError
from ofa.core.files import write_json
from ofa.pipeline.accuracy_store import AccuracyStore, Samples, read_accuracies
from ofa.pipeline.choose import ROUNDING, choose_levels, spread
from ofa.pipeline.costs import CostFunction, check_limits, target_costs
from ofa.pipeline.judge import Doubts
from ofa.pipeline.level_files import accuracy_measure
from ofa.pipeline.measured import fit_predictor, measured_archs, measured_front, precision_drop
from ofa.pipeline.measured_search import search_measurements
from ofa.pipeline.stage import Progress, Stage
from ofa.pipeline.target import Target
from ofa.predict.predictor import Predictor
from ofa.search.algorithm import search
from ofa.search.pareto import non_dominated
from ofa.search.problem import Constraint, Front, Objective
from ofa.space.arch import Arch, Rows

Limits = Mapping[str, float]


class _Candidate(NamedTuple):
    """An arch in a precision, with its predicted objective and top-1 accuracy."""

    precision: str
    row: Rows
    objective: float
    top1_percent: float


def _search(target: Target, progress: Progress) -> None:
    run, config = target.run, target.recipe.search
    accuracies = read_accuracies(run, file_format=target.file_format, without=target.name)
    measure = accuracy_measure(run, target.format)
    path = f"accuracies/{target.name}.json"
    store = AccuracyStore(run, path, measure, known=dict(accuracies), file_format=target.file_format)
    costs = {precision: target_costs(target, precision) for precision in target.precisions}
    predictor, rng = run.predictor(), run.rng("search")
    n_lossy, n_limits = len(set(costs) - {"float32"}), len(target.config.limits or ())
    n_measured = config.rounds * (config.verify + n_limits) + n_lossy * _n_first(target) + config.judge
    total = n_measured * (2 if n_lossy else 1)  # an upper bound: some archs are found again

    def add(precision: str, archs: list[Arch]) -> None:
        samples = store.measure(precision, archs, lambda done, message: progress(done, total, message))
        accuracies[precision] = accuracies.get(precision, {}) | samples

    def add_in_both(precision: str, archs: list[Arch]) -> None:
        for one in dict.fromkeys(("float32", precision)):
            add(one, archs)

    for precision in sorted(set(costs) - {"float32"}):
        add_in_both(precision, _first_archs(target, costs[precision], predictor, accuracies["float32"], rng))
    if config.over == "measurements":
        (precision,) = costs
        n_evaluated = search_measurements(target, costs[precision], accuracies, precision, add_in_both, rng)
        predictor = fit_predictor(run, predictor.again(), accuracies["float32"])
    else:
        predictor, n_evaluated = _search_predictions(target, costs, accuracies, predictor, add, rng)
    measured = measured_archs(target, costs, accuracies, predictor)
    front, judged = measured_front(target, measured), {}
    if config.judge:
        doubts = Doubts(target, front, costs, accuracies, predictor)
        for precision, archs in doubts.archs.items():
            add_in_both(precision, archs)
        predictor = fit_predictor(run, predictor.again(), accuracies["float32"])
        measured = measured_archs(target, costs, accuracies, predictor)
        front = measured_front(target, measured)
        judged = {"judged": doubts.verdict(measured, front)}
    predictor.save(target.path("refined.safetensors"))
    content = {"n_evaluated": n_evaluated, "verified": store.n_samples, "front": front} | judged
    write_json(target.path("front.json"), content | {"levels": choose_levels(measured, front, target.config)})


def _search_predictions(
    target: Target,
    costs: Mapping[str, Mapping[str, CostFunction]],
    accuracies: Mapping[str, Samples],
    predictor: Predictor,
    add: Callable[[str, list[Arch]], None],
    rng: np.random.Generator,
) -> tuple[Predictor, int]:
    """Search what the predictor says in rounds, measuring archs of each front; `add` adds them to the accuracies.

    Returns the predictor fitted to all of them, and the number of archs that were looked at.
    """
    config, space, n_evaluated = target.recipe.search, target.run.family.space, 0
    all_limits: list[Limits] = [{}, *(target.config.limits or ())]
    for _ in range(config.rounds):
        chosen: list[_Candidate] = []
        for limits in all_limits:
            candidates: list[_Candidate] = []
            for precision, of_precision in costs.items():
                found, n = _candidates(target, precision, of_precision, predictor, accuracies, limits, rng)
                candidates, n_evaluated = candidates + found, n_evaluated + n
            chosen += _to_verify(target, candidates, limits, config.verify)
        archs = [space.decode(row) for row in space.unique(np.stack([one.row for one in chosen]))]
        add("float32", [arch for arch in archs if arch not in accuracies["float32"]])
        for precision in sorted(set(costs) - {"float32"}):
            add(precision, [space.decode(one.row) for one in chosen if one.precision == precision])
        predictor = fit_predictor(target.run, predictor.again(), accuracies["float32"])
    return predictor, n_evaluated


def predicted_front(
    target: Target,
    costs: Mapping[str, CostFunction],
    accuracy: CostFunction,
    start: Rows,
    rng: np.random.Generator,
    constraints: list[Constraint],
) -> Front:
    """Search the Pareto front of the target's objective and predicted accuracy, within constraints.

    The search starts from the rows `start`, such as those that were measured, and has the recipe's budget. If no arch
    meets the constraints, an InfeasibleError names the tightest value seen of each.
    """
    name, config = target.config.objective, target.recipe.search
    objectives = [Objective(name, costs[name]), Objective("top1_percent", accuracy, maximize=True)]
    return search(
        target.run.family.space,
        objectives,
        constraints,
        rng,
        algorithm=config.algorithm,
        population=config.population,
        generations=config.generations,
        start=start,
        **config.settings,
    )


def best_under(target: Target, limits: Limits) -> dict[str, Any]:
    """Return the arch, and its precision, with the highest predicted accuracy under limits on predicted costs.

    Raises:
        InfeasibleError: no arch meets the limits.
        RunError: the predictor or the latency table is missing, or was made with another recipe.
    """
    target.require("fit", "search")
    target.require("profile", "search")
    accuracies = read_accuracies(target.run, file_format=target.file_format)
    predictor, rng = target.predictor(), target.rng("search")
    costs = {precision: target_costs(target, precision) for precision in target.precisions}
    found = [
        candidate
        for precision, of_precision in costs.items()
        for candidate in _candidates(target, precision, of_precision, predictor, accuracies, limits, rng)[0]
    ]
    best = _to_verify(target, found, limits or {target.config.objective: np.inf}, 1)[0]
    values = {name: float(cost(best.row[None])[0]) for name, cost in costs[best.precision].items()}
    return {
        "arch": dict(target.run.family.space.decode(best.row)),
        "precision": best.precision,
        "predicted_latency_ms": values.pop("latency_ms"),
        "predicted_top1_percent": best.top1_percent,
    } | values


def _n_first(target: Target) -> int:
    return max(4, target.recipe.search.verify // 2)


def _first_archs(
    target: Target, costs: Mapping[str, CostFunction], predictor: Predictor, known: Samples, rng: Any
) -> list[Arch]:
    """Return the archs on which a precision's accuracy drop is learned first, spread over the float32 front."""
    space = target.run.family.space
    front = predicted_front(target, costs, predictor, space.rows(known), rng, [])
    return [space.decode(row) for row in front.rows[spread(front.values[:, 0], _n_first(target))]]


def _candidates(
    target: Target,
    precision: str,
    costs: Mapping[str, CostFunction],
    predictor: Predictor,
    accuracies: Mapping[str, Samples],
    limits: Limits,
    rng: np.random.Generator,
) -> tuple[list[_Candidate], int]:
    """Return the predicted front in one precision, none if no arch meets the limits, and the number of archs seen."""
    drop = precision_drop(target.run, accuracies, precision)
    constraints = [Constraint(name, costs[name], limit * ROUNDING) for name, limit in limits.items()]
    if precision != "float32":
        most = target.config.max_accuracy_drop_percent
        constraints.append(Constraint("accuracy_drop_percent", drop, most))
    start = target.run.family.space.rows(accuracies["float32"])
    try:
        front = predicted_front(target, costs, lambda rows: predictor(rows) - drop(rows), start, rng, constraints)
    except InfeasibleError as error:
        if len(target.precisions) == 1:
            raise InfeasibleError(f"target {target.name!r}: {error}") from error
        return [], 0
    pairs = zip(front.rows, front.values.tolist(), strict=True)
    return [_Candidate(precision, row, *values) for row, values in pairs], front.n_evaluated


def _to_verify(target: Target, candidates: list[_Candidate], limits: Limits, n: int) -> list[_Candidate]:
    """Return the most accurate candidate within limits, or without limits `n` spread over the front of all."""
    if not candidates:
        named = ", ".join(f"{name} = {limit:g}" for name, limit in limits.items())
        raise InfeasibleError(f"target {target.name!r}: no arch meets {named} in any precision; raise the limits")
    if limits:
        return [max(candidates, key=lambda one: one.top1_percent)]
    losses = np.array([[one.objective, -one.top1_percent] for one in candidates])
    front = [one for one, on in zip(candidates, non_dominated(losses), strict=True) if on]
    front.sort(key=lambda one: one.objective)
    return [front[i] for i in spread(np.array([one.objective for one in front]), n)]


SEARCH = Stage(
    "search",
    ("fit", "profile"),
    ("search", "sample"),
    _search,
    target_keys=(
        "format",
        "format_options",
        "objective",
        "limits",
        "levels",
        "min_top1_percent",
        "max_accuracy_drop_percent",
        "power",
    ),
    check=check_limits,
)
