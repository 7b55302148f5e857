"""The stages from training to search. Export and bundle live in `export`, the report in `ofa.report`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from functools import cached_property, partial
from typing import Any, NamedTuple

import numpy as np

from ofa.core import distributed
from ofa.core.errors import InfeasibleError
from ofa.core.files import write_json
from ofa.core.tensors import write_tensors
from ofa.cost.counted import macs_m, params_m
from ofa.cost.latency.profile import profile
from ofa.cost.latency.table import LatencyTable
from ofa.evaluate.subnets import evaluate_subnets
from ofa.pipeline.evaluate import load_supernet
from ofa.pipeline.run import Progress, Run, Stage
from ofa.predict.denoise import denoised_percent, estimate_percent, model_rmse_percent
from ofa.predict.metrics import fit_and_evaluate
from ofa.predict.mlp import AccuracyPredictor
from ofa.search.nsga2 import search
from ofa.search.pareto import non_dominated
from ofa.search.problem import Constraint, Front, Objective
from ofa.space.arch import Arch, Rows
from ofa.supernet.supernet import Supernet
from ofa.train.trainer import train

Entry = dict[str, Any]

_AT_ONCE = 24
"""Archs that a process measures between two times that results are kept."""


class Sample(NamedTuple):
    """What a subnet scores on validation images: top-1 accuracy in percent, and mean cross-entropy in nats."""

    top1_percent: float
    loss: float


def measure_samples(run: Run, supernet: Supernet, archs: list[Arch]) -> Iterator[tuple[Arch, Sample]]:
    """Validation scores of subnets, each with its own BatchNorm statistics; grouped by resolution."""
    config, data = run.recipe.sample, run.data
    for arch, found in evaluate_subnets(
        supernet, archs, data, data.validation, config.calibration_images, config.images
    ):
        yield arch, Sample(found.top1_percent, found.loss)


def _train(run: Run, progress: Progress) -> None:
    supernet = Supernet(run.family, seed=run.recipe.seed)
    settings = (run.data, run.recipe.data, run.recipe.train, run.folder, run.recipe.seed)
    train(supernet, *settings, progress, macs_m(run.family))
    if distributed.rank() == 0:
        write_tensors(run.path("supernet.safetensors"), supernet.network.state_dict(), {"family": run.family.name})


def _profile(run: Run, progress: Progress) -> None:
    table = profile(
        run.family,
        run.device,
        run.rng("profile"),
        run.recipe.profile,
        run.path("latency_samples.json"),
        lambda done, total: progress(done, total, "latencies"),
    )
    table.save(run.path("latency_table.json"))


def _sample(run: Run, progress: Progress) -> None:
    space, config = run.family.space, run.recipe.sample
    ends = space.rows([space.smallest, space.largest])
    rows = space.unique(np.concatenate([ends, space.sample(2 * config.archs, run.rng("sample"))]))[: config.archs]
    measured = _Measured(run, SAMPLE, "samples.json")
    measured([space.decode(row) for row in rows], lambda done, said: progress(done, len(rows), said))


class _Measured:
    """The validation scores that a stage measures: kept in a file, so that a stopped stage goes on with them."""

    def __init__(self, run: Run, stage: Stage, name: str) -> None:
        self.run, self.name, self.fingerprint = run, name, run.fingerprint(stage)
        self.samples: dict[Arch, Sample] = {}
        if run.path(name).exists():
            content = run.read_json(name)
            if content["fingerprint"] == self.fingerprint:
                self.samples = _samples_of(run, content["samples"])

    def __call__(self, archs: list[Arch], said: Callable[[int, str], None]) -> dict[Arch, Sample]:
        """The scores of archs; says how many are known."""
        todo = sorted((arch for arch in archs if arch not in self.samples), key=lambda arch: arch["resolution"])
        step = _AT_ONCE * distributed.world_size()
        for part in (todo[start : start + step] for start in range(0, len(todo), step)):
            found = distributed.share_out(partial(self._measure, said), part, len(Sample._fields))
            self.samples |= {arch: Sample(*scores) for arch, scores in found.items()}
            self._save()
        return {arch: self.samples[arch] for arch in archs}

    @cached_property
    def _supernet(self) -> Supernet:
        return load_supernet(self.run)

    def _measure(self, said: Callable[[int, str], None], mine: list[Arch]) -> dict[Arch, Sample]:
        found: dict[Arch, Sample] = {}
        for arch, sample in measure_samples(self.run, self._supernet, mine):
            found[arch] = sample
            done = len(self.samples) + len(found) * distributed.world_size()
            said(done, f"accuracy {sample.top1_percent:.1f}%")
        return found

    def _save(self) -> None:
        if distributed.rank() != 0:
            return
        samples = [{"arch": dict(arch)} | sample._asdict() for arch, sample in self.samples.items()]
        write_json(self.run.path(self.name), {"fingerprint": self.fingerprint, "samples": samples})


def _samples_of(run: Run, entries: list[Entry]) -> dict[Arch, Sample]:
    return {run.family.space.arch(one["arch"]): Sample(one["top1_percent"], one["loss"]) for one in entries}


def read_samples(run: Run) -> dict[Arch, Sample]:
    """The archs that the sample stage measured, and what they scored."""
    return _samples_of(run, run.read_json("samples.json")["samples"])


def _columns(samples: Iterable[Sample]) -> tuple[np.ndarray, np.ndarray]:
    """Accuracies in percent, and losses, `[n]` each."""
    top1_percent, loss = np.array(list(samples)).T
    return top1_percent, loss


def denoised(run: Run, samples: Iterable[Sample]) -> np.ndarray:
    """Accuracies in percent with less of the validation images' noise, `[n]`; see `denoised_percent`."""
    return denoised_percent(*_columns(samples), _n_images(run))


def _fit(run: Run, progress: Progress) -> None:
    samples, space, config = read_samples(run), run.family.space, run.recipe.predictor
    accuracies, losses = _columns(samples.values())
    rows, n_images = space.rows(samples), _n_images(run)
    predictor, fit = fit_and_evaluate(space, rows, accuracies, losses, n_images, config, run.recipe.seed)
    predictor.save(run.path("predictor.safetensors"))
    write_json(run.path("predictor.json"), asdict(fit))
    progress(1, 1, f"Kendall tau {fit.kendall_tau:.2f}")


def read_predictor(run: Run) -> AccuracyPredictor:
    """The predictor that the search refined, if it has ended; else the one fitted to random archs."""
    name = "refined.safetensors" if run.finished(SEARCH) else "predictor.safetensors"
    return AccuracyPredictor.load(run.path(name), run.family.space)


def read_table(run: Run) -> LatencyTable:
    """The latency table of a run's device."""
    return LatencyTable.load(run.path("latency_table.json"), run.family)


def predicted_front(
    run: Run,
    table: LatencyTable,
    predictor: AccuracyPredictor,
    start: Rows,
    rng: np.random.Generator,
    limit_ms: float | None = None,
) -> Front:
    """The front of predicted latency and accuracy, under a latency limit if one is given.

    Args:
        run: whose search space and budget.
        table: of latency.
        predictor: of accuracy.
        start: archs that the search begins with, such as those that were measured.
        rng: all randomness.
        limit_ms: of latency.

    Raises:
        InfeasibleError: no arch is as fast as the limit; names the fastest seen.
    """
    config = run.recipe.search
    objectives = [Objective("latency_ms", table), Objective("top1_percent", lambda rows: predictor(rows)[0], True)]
    constraints = [] if limit_ms is None else [Constraint("latency_ms", table, limit_ms)]
    return search(run.family.space, objectives, constraints, rng, config.population, config.generations, start=start)


def _search(run: Run, progress: Progress) -> None:
    """Rounds of searching, measuring what was found, and fitting the predictor to that as well.

    A predictor fitted to random archs is too hopeful where the search goes: it has seen few archs there, and the
    search finds its errors. Measured archs of the front mend that (as in arXiv 2202.12954).
    """
    config, space = run.recipe.search, run.family.space
    known, verified = read_samples(run), _Measured(run, SEARCH, "verified.json")
    table, predictor = read_table(run), AccuracyPredictor.load(run.path("predictor.safetensors"), space)
    rng, n_evaluated = run.rng("search"), 0
    limits = (None, *(config.latency_limits_ms or ()))
    total = config.rounds * (config.verify + len(limits) - 1)  # at most: some are found again
    for _ in range(config.rounds):
        fronts = [predicted_front(run, table, predictor, space.rows(known), rng, limit) for limit in limits]
        chosen = [fronts[0].rows[_spread(fronts[0].values[:, 0], config.verify)]]
        chosen += [front.rows[-1:] for front in fronts[1:]]
        found = [space.decode(row) for row in space.unique(np.concatenate(chosen))]
        new = [arch for arch in found if arch not in known]
        known |= verified(new, lambda done, said: progress(done, total, said))
        rows, targets = space.rows(known), denoised(run, known.values())
        predictor = AccuracyPredictor.fit(space, rows, targets, run.recipe.predictor, run.recipe.seed)
        n_evaluated += sum(front.n_evaluated for front in fronts)
    predictor.save(run.path("refined.safetensors"))
    entries = _entries(run, table, known, predictor)
    losses = np.array([[entry["predicted_latency_ms"], -entry["estimated_top1_percent"]] for entry in entries])
    front = sorted(
        (entry for entry, on in zip(entries, non_dominated(losses), strict=True) if on),
        key=lambda entry: entry["predicted_latency_ms"],
    )
    write_json(
        run.path("front.json"),
        {
            "n_evaluated": n_evaluated,
            "verified": len(verified.samples),
            "front": front,
            "levels": _pick_levels(run, front),
        },
    )


def read_model_rmse_percent(run: Run) -> float:
    """How far the fitted predictor is from true accuracies, judged on archs kept from it."""
    fit = run.read_json("predictor.json")
    return model_rmse_percent(np.array(fit["measured_percent"]), np.array(fit["predicted_percent"]), _n_images(run))


def _n_images(run: Run) -> int:
    """How many validation images an accuracy of this run was measured on."""
    return min(run.recipe.sample.images, len(run.data.validation))


def _entries(run: Run, table: LatencyTable, known: dict[Arch, Sample], predictor: AccuracyPredictor) -> list[Entry]:
    """Every measured arch with all that is predicted and estimated of it."""
    rows = run.family.space.rows(known)
    predicted, _ = predictor(rows)
    measured, off = denoised(run, known.values()), read_model_rmse_percent(run)
    costs = {
        "predicted_latency_ms": table(rows),
        "predicted_top1_percent": predicted,
        "estimated_top1_percent": estimate_percent(measured, predicted, _n_images(run), off),
        "macs_m": macs_m(run.family)(rows),
        "params_m": params_m(run.family)(rows),
    }
    return [
        {"arch": dict(arch)} | sample._asdict() | {name: float(cost[i]) for name, cost in costs.items()}
        for i, (arch, sample) in enumerate(known.items())
    ]


def _pick_levels(run: Run, front: list[Entry]) -> list[Entry]:
    """The archs to deploy, the most accurate first."""
    config = run.recipe.search
    good = [entry for entry in front if entry["estimated_top1_percent"] >= config.min_top1_percent]
    if not good:
        best = max(entry["estimated_top1_percent"] for entry in front)
        raise InfeasibleError(
            f"search.min_top1_percent = {config.min_top1_percent} is above the best accuracy found, "
            f"{best:.2f}; lower it"
        )
    latencies = np.array([entry["predicted_latency_ms"] for entry in good])
    if config.latency_limits_ms is None:
        picked = _spread(latencies, config.levels, apart=0.1)
    else:
        feasible = [limit for limit in config.latency_limits_ms if limit >= latencies[0]]
        if len(feasible) < len(config.latency_limits_ms):
            raise InfeasibleError(
                f"search.latency_limits_ms = {config.latency_limits_ms}: the fastest arch of at least "
                f"{config.min_top1_percent}% takes {latencies[0]:.4g} ms; raise the limit"
            )
        picked = np.unique([int(np.flatnonzero(latencies <= limit)[-1]) for limit in feasible])
    return [good[i] for i in picked[::-1]]


def _spread(latencies: np.ndarray, n: int, apart: float = 0.0) -> np.ndarray:
    """Positions of at most `n` ascending latencies, the largest included, evenly spread on a logarithmic scale.

    Args:
        latencies: in ms, `[m]`.
        n: how many, at most.
        apart: least difference of two picked ones, as a share; fewer are picked where they lie closer.
    """
    logs, least = np.log(latencies), np.log1p(apart)
    picked = [len(latencies) - 1]
    for target in np.linspace(logs[0], logs[-1], n)[:-1]:
        free = [i for i in range(len(latencies)) if i not in picked and np.abs(logs[i] - logs[picked]).min() >= least]
        picked += [min(free, key=lambda i: abs(logs[i] - target))] if free else []
    return np.array(sorted(picked))


TRAIN = Stage("train", (), ("family", "data", "train"), _train, keep=True)
PROFILE = Stage("profile", (), ("family", "data", "profile"), _profile)
SAMPLE = Stage("sample", ("train",), ("sample",), _sample)
FIT = Stage("fit", ("sample",), ("predictor",), _fit)
SEARCH = Stage("search", ("fit", "profile"), ("search", "sample"), _search)
