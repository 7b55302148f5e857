"""Stage `search`: rounds of searching the predicted front, measuring it, and refitting the predictor.

A predictor fitted to random archs is too optimistic where the search goes: it has seen few archs there, and the search
exploits its errors. Measured archs of the front correct that (as in arXiv 2202.12954).
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ofa.core.errors import InfeasibleError
from ofa.core.files import write_json
from ofa.cost.counted import macs_m, params_m
from ofa.cost.latency.table import LatencyTable
from ofa.pipeline.accuracy_store import AccuracyStore, Sample, denoised, n_validation_images, read_samples
from ofa.pipeline.recipe import SearchConfig
from ofa.pipeline.run import Run
from ofa.pipeline.stage import Progress, Stage
from ofa.predict.denoise import estimate_percent, model_rmse_percent
from ofa.predict.mlp import AccuracyPredictor
from ofa.search.nsga2 import search
from ofa.search.pareto import non_dominated
from ofa.search.problem import Constraint, Front, Objective
from ofa.space.arch import Arch, Rows

_APART = 0.1
"""Smallest relative difference in latency of two levels."""


def _search(run: Run, progress: Progress) -> None:
    config, space = run.recipe.search, run.family.space
    samples, store = read_samples(run), AccuracyStore(run, SEARCH, "verified.json")
    table, predictor = run.latency_table(), AccuracyPredictor.load(run.path("predictor.safetensors"), space)
    rng, n_evaluated = run.rng("search"), 0
    limits_ms = (None, *(config.latency_limits_ms or ()))
    total = config.rounds * (config.verify + len(limits_ms) - 1)  # an upper bound: some archs are found again
    for _ in range(config.rounds):
        fronts = [predicted_front(run, table, predictor, space.rows(samples), rng, limit) for limit in limits_ms]
        rows = [fronts[0].rows[spread(fronts[0].values[:, 0], config.verify)]]
        rows += [front.rows[-1:] for front in fronts[1:]]
        archs = [space.decode(row) for row in space.unique(np.concatenate(rows))]
        unmeasured = [arch for arch in archs if arch not in samples]
        samples |= store.measure(unmeasured, lambda done, message: progress(done, total, message))
        targets = denoised(run, samples.values())
        predictor = AccuracyPredictor.fit(
            space, space.rows(samples), targets, config=run.recipe.predictor, seed=run.recipe.seed
        )
        n_evaluated += sum(front.n_evaluated for front in fronts)
    predictor.save(run.path("refined.safetensors"))
    front = _measured_front(run, table, samples, predictor)
    content = {"n_evaluated": n_evaluated, "verified": len(store.samples), "front": front}
    write_json(run.path("front.json"), content | {"levels": choose_levels(front, config)})


def predicted_front(
    run: Run,
    table: LatencyTable,
    predictor: AccuracyPredictor,
    start: Rows,
    rng: np.random.Generator,
    limit_ms: float | None = None,
) -> Front:
    """Search the Pareto front of predicted latency, up to a limit if there is one, and accuracy.

    The search starts from the rows `start`, such as those that were measured, and has the recipe's budget. If no arch
    meets the limit, an InfeasibleError names the lowest latency seen.
    """
    config = run.recipe.search
    objectives = [Objective("latency_ms", table), Objective("top1_percent", predictor, maximize=True)]
    constraints = [] if limit_ms is None else [Constraint("latency_ms", table, limit_ms)]
    budget = {"population": config.population, "generations": config.generations}
    return search(run.family.space, objectives, constraints, rng, start=start, **budget)


def best_under(run: Run, limit_ms: float) -> dict[str, Any]:
    """Return the arch with the highest predicted accuracy under a predicted latency; see `predicted_front`."""
    start = run.family.space.rows(read_samples(run))
    front = predicted_front(run, run.latency_table(), run.predictor(), start, run.rng("search"), limit_ms)
    latency_ms, top1_percent = front.values[-1]
    arch = dict(run.family.space.decode(front.rows[-1]))
    return {"arch": arch, "predicted_latency_ms": latency_ms, "predicted_top1_percent": top1_percent}


def read_model_rmse_percent(run: Run) -> float:
    """Return the fitted predictor's error against true accuracies, from archs held out of the fit."""
    metrics = run.read_json("predictor.json")
    measured, predicted = (np.array(metrics[f"{kind}_percent"]) for kind in ("measured", "predicted"))
    return model_rmse_percent(measured, predicted, n_validation_images(run))


def _measured_front(
    run: Run, table: LatencyTable, samples: dict[Arch, Sample], predictor: AccuracyPredictor
) -> list[dict[str, Any]]:
    """Return the Pareto front of all measured archs with their predictions and estimates, the fastest first."""
    rows, n_images = run.family.space.rows(samples), n_validation_images(run)
    latency_ms, predicted, measured = table(rows), predictor(rows), denoised(run, samples.values())
    rmse_percent = read_model_rmse_percent(run)
    estimated = estimate_percent(measured, predicted, n_images=n_images, model_rmse_percent=rmse_percent)
    values = {
        "predicted_latency_ms": latency_ms,
        "predicted_top1_percent": predicted,
        "estimated_top1_percent": estimated,
        "macs_m": macs_m(run.family)(rows),
        "params_m": params_m(run.family)(rows),
    }
    entries = [
        {"arch": dict(arch)} | sample._asdict() | {name: float(value[i]) for name, value in values.items()}
        for i, (arch, sample) in enumerate(samples.items())
    ]
    on_front = non_dominated(np.stack([latency_ms, -estimated], axis=1))
    front = [entry for entry, on in zip(entries, on_front, strict=True) if on]
    return sorted(front, key=lambda entry: float(entry["predicted_latency_ms"]))


def choose_levels(front: list[dict[str, Any]], config: SearchConfig) -> list[dict[str, Any]]:
    """Choose the archs to deploy from a measured front, the fastest first; return them with the most accurate first.

    If no arch is accurate enough, or none of those is fast enough, an InfeasibleError names the best value.
    """
    accurate = [entry for entry in front if entry["estimated_top1_percent"] >= config.min_top1_percent]
    if not accurate:
        best = max(entry["estimated_top1_percent"] for entry in front)
        raise InfeasibleError(
            f"search.min_top1_percent = {config.min_top1_percent} is above the best accuracy found, {best:.2f}; "
            "lower it"
        )
    latency_ms = np.array([entry["predicted_latency_ms"] for entry in accurate])
    limits = config.latency_limits_ms
    if limits is None:
        positions = spread(latency_ms, config.levels, apart=_APART)
    elif min(limits) < latency_ms[0]:
        raise InfeasibleError(
            f"search.latency_limits_ms = {limits}: the fastest arch of at least {config.min_top1_percent}% takes "
            f"{latency_ms[0]:.4g} ms; raise the limit"
        )
    else:
        positions = np.unique([int(np.flatnonzero(latency_ms <= limit)[-1]) for limit in limits])
    return [accurate[i] for i in positions[::-1]]


def spread(latency_ms: NDArray[np.float64], n: int, apart: float = 0.0) -> NDArray[np.int64]:
    """Return up to `n` positions in ascending latencies `[m]`, evenly spread on a logarithmic scale, the last included.

    Two of them differ by at least the share `apart`; fewer are returned where latencies lie closer.
    """
    logs, least = np.log(latency_ms), np.log1p(apart)
    positions = [len(latency_ms) - 1]
    for target in np.linspace(logs[0], logs[-1], n)[:-1]:
        free = [i for i in range(len(logs)) if i not in positions and np.abs(logs[i] - logs[positions]).min() >= least]
        positions += [min(free, key=lambda i: abs(logs[i] - target))] if free else []
    return np.array(sorted(positions))


SEARCH = Stage("search", ("fit", "profile"), ("search", "sample"), _search)
