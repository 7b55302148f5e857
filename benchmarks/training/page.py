"""The page of results, docs/results/training.md, with its plots."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import combinations
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from scipy.stats import kendalltau

from benchmarks.machine import machine
from benchmarks.plots import save
from benchmarks.training.results import COSTS, of_seed, read
from benchmarks.training.tasks import (
    BATCH,
    DEFAULT,
    HALF,
    IMAGES,
    LARGE,
    REFERENCE,
    SHARE,
    STRATEGIES,
    TASKS,
    TWO_PROCESSES,
    WHOLE,
    alone_name,
    fixed_archs,
    job_name,
    phase_key,
    spread_archs,
)
from ofa.cost.counted import macs_m

PAGE = Path("docs/results/training.md")

Results = list[dict[str, Any]]
"""Of each seed, by the names of its trainings."""


def write_page(n_seeds: int) -> None:
    """Writes the page from what there is of some seeds; a section's numbers are of the seeds that have all of it."""
    found = [read(of_seed(seed)) for seed in range(n_seeds)]
    lines = [
        "# Training: do subnets need retraining?",
        "",
        f"Made by `python -m benchmarks.training {n_seeds}`: Fashion-MNIST, {IMAGES:,} training images (the same for",
        f"all), {BATCH} a step, all 10,000 test images; mean and standard deviation over seeds. Two trainings at once,",
        "one thread each. The number of images, learning rates and the archs of a step of the default strategy were",
        "picked on another seed. With as many steps over 4,000 images (40 epochs), inherited was 0.5 to 1.0 points",
        "below alone (6 archs, one seed, two learning rates); over 1,000 (160 epochs), 0.4 above (8 archs, one seed):",
        "what follows holds for this size. With twice the steps over 4,000 images (80 epochs, 20 archs, one seed),",
        "it was 0.3 below on average, 1.0 below for the 8 smallest, 1 to 2 above for the 2 largest; Kendall tau 0.64.",
        "",
        f"Machine: {machine()}.",
        "",
    ]
    for task in TASKS:
        lines += _inherited(found, task)
    lines += _strategies(found)
    PAGE.parent.mkdir(parents=True, exist_ok=True)
    PAGE.write_text("\n".join(lines))


def _with_all(found: Results, names: Iterable[str]) -> Results:
    """The seeds that have all of these results."""
    wanted = set(names)
    return [seed for seed in found if wanted <= seed.keys()]


def _inherited(found: Results, name: str) -> list[str]:
    """Inherited against trained alone: a table, a plot, the rank correlation."""
    task, supernet = TASKS[name], job_name(name, LARGE, WHOLE)
    found = _with_all(found, [supernet, *(alone_name(name, i) for i in range(task.alone))])
    if not found:
        return []
    made = task.make()
    archs = spread_archs(made, task.alone)
    cost = macs_m(made)(made.space.rows(archs))
    inherited = np.array([_accuracies(seed[supernet], "spread") for seed in found])
    alone = np.array([[seed[alone_name(name, i)]["accuracy"]["test"] for i in range(task.alone)] for seed in found])
    gaps = inherited - alone  # seeds x archs
    taus = np.array([kendalltau(a, b).statistic for a, b in zip(inherited, alone, strict=True)])
    figure, axes = plt.subplots(figsize=(6, 4))
    for label, values in (("inherited", inherited), ("trained alone", alone)):
        axes.errorbar(cost, values.mean(0), _deviation(values), marker="o", capsize=3, label=label)
    axes.set(xscale="log", xlabel="MACs, millions", ylabel="test top-1, %", title=f"{made.name}, {task.epochs} epochs")
    axes.legend()
    save(figure, PAGE.with_name(f"training-{name}.svg"))
    rows = [
        f"| {cost[i]:.2f} | {arch['resolution']} | {_spread(inherited[:, i])} | {_spread(alone[:, i])} "
        f"| {_signed(gaps[:, i])} |"
        for i, arch in enumerate(archs)
    ]
    return [
        f"## `{made.name}`: inherited against trained alone",
        "",
        f"{len(archs)} archs spread over the space, {len(found)} seeds. Inherited: taken from the supernet",
        f"({LARGE}), BatchNorm re-estimated. Alone: the same network trained by itself from labels for",
        f"{task.epochs} epochs, as many as the supernet, with the same augmentation, optimizer and schedule.",
        "",
        f"- Mean gap (inherited minus alone): {_signed(gaps.mean(1))} points.",
        f"- Worst arch: {gaps.mean(0).min():+.2f} (mean over seeds); archs at -0.3 or above: "
        f"{(gaps.mean(0) >= -0.3).sum()} of {len(archs)}.",
        f"- Kendall tau between inherited and alone: {_spread(taus, 3)}; between their means over seeds: "
        f"{kendalltau(inherited.mean(0), alone.mean(0)).statistic:.3f}.",
        *_noise(alone),
        "",
        f"![inherited and alone](training-{name}.svg)",
        "",
        "| MACs M | pixels | inherited % | alone % | gap |",
        "| --- | --- | --- | --- | --- |",
        *rows,
        "",
    ]


def _noise(alone: np.ndarray) -> list[str]:
    """How well networks alone, seeds x archs, agree with themselves: what tau to compare with."""
    pairs = list(combinations(alone, 2))
    if not pairs:
        return []
    taus = np.array([kendalltau(one, other).statistic for one, other in pairs])
    return [f"- Kendall tau between networks alone of two seeds, for comparison: {_spread(taus, 3)}."]


def _strategies(found: Results) -> list[str]:
    made = TASKS["cnn"].make()
    cost = macs_m(made)(made.space.rows(fixed_archs(made)))
    middle = int(np.argsort(cost)[len(cost) // 2])
    rows, ends = [], []
    names = [
        *((name, "") for name in STRATEGIES),
        (DEFAULT, HALF),
        *((LARGE, said) for said in (HALF, *TWO_PROCESSES)),
    ]
    names = [(name, said) for name, said in names if _with_all(found, [job_name("cnn", name, said)])]
    if not names:
        return []
    seconds = read(COSTS)["cnn"]
    for name, said in names:
        job = job_name("cnn", name, said)
        results = [seed[job] for seed in _with_all(found, [job])]
        fixed = np.array([_accuracies(result, "fixed") for result in results])  # seeds x archs
        spread = np.array([_accuracies(result, "spread") for result in results])
        columns = (
            spread[:, 0],
            fixed[:, int(cost.argmin())],
            fixed[:, middle],
            fixed[:, int(cost.argmax())],
            spread[:, -1],
        )
        epochs = " + ".join(map(str, results[0]["epochs"]))
        cost_s = sum(n * seconds[phase_key(name, i)] for i, n in enumerate(results[0]["epochs"]))
        shown = " | ".join(_spread(column) for column in (*columns, fixed.mean(1)))
        rows.append(f"| {name} {said} | {len(results)} | {epochs} | {cost_s:.0f} | {shown} |")
        ends.append((columns[0], columns[2], columns[4]))
    figure, axes = plt.subplots(figsize=(7, 4.5))
    for i, label in enumerate(("smallest", "median of 50", "largest")):
        points = [accuracies[i] for accuracies in ends]
        axes.errorbar(
            [values.mean() for values in points],
            np.arange(len(names)),
            xerr=[_deviation(values) for values in points],
            fmt="o",
            capsize=3,
            label=label,
        )
    axes.set_yticks(range(len(names)), [f"{name} {said}" for name, said in names], fontsize=8)
    axes.invert_yaxis()
    axes.grid(axis="x", alpha=0.3)
    axes.set(xlabel="test top-1, %", title="strategies at equal cost")
    axes.legend(fontsize=8)
    save(figure, PAGE.with_name("training-strategies.svg"))
    return [
        f"## Strategies at equal cost, `{made.name}`",
        "",
        "The cost of an epoch of each phase was measured in interleaved rounds with nothing else running; epochs are",
        f"such that all cost the same but for rounding, {SHARE:.2f} of the supernet above. 50 random archs, the",
        "same for all: those of least, median and most MACs, and the mean of all. Test top-1 in percent.",
        f"`{REFERENCE}` has once-for-all's stages, shares of epochs and learning rates (arXiv 1908.09791).",
        f"The recipes for Fashion-MNIST use `{DEFAULT}` ([why](../training.md#what-the-subnets-are-worth)).",
        "",
        "![strategies](training-strategies.svg)",
        "",
        "| strategy | seeds | epochs | cost, s | smallest | least of 50 | median | most of 50 | largest | all 50 |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
        *rows,
        "",
        *_at_half_the_cost(found),
    ]


def _at_half_the_cost(found: Results) -> list[str]:
    """Two strategies at half the cost against the reference at the whole cost, as means of the 50 archs."""
    lines = []
    whole = job_name("cnn", REFERENCE)
    for name in (DEFAULT, LARGE):
        half = job_name("cnn", name, HALF)
        some = _with_all(found, [half, whole])
        if some:
            ours, reference = (
                np.array([np.mean(_accuracies(seed[job], "fixed")) for seed in some]) for job in (half, whole)
            )
            lines.append(f"- `{name}`: {_spread(ours)} (all 50), {_signed(ours - reference)} points.")
    return [f"At half the cost, against `{REFERENCE}` at the whole:", "", *lines, ""] if lines else []


def _accuracies(result: dict[str, Any], key: str) -> list[float]:
    return [entry["test"] for entry in result[key]]


def _deviation(values: np.ndarray) -> Any:
    """Standard deviation over seeds, the first axis; 0 of one seed."""
    return values.std(0, ddof=min(1, len(values) - 1))


def _spread(values: np.ndarray, digits: int = 2) -> str:
    return f"{values.mean():.{digits}f}" + (f" ± {_deviation(values):.{digits}f}" if len(values) > 1 else "")


def _signed(values: np.ndarray) -> str:
    return f"{values.mean():+.2f}" + (f" ± {_deviation(values):.2f}" if len(values) > 1 else "")
