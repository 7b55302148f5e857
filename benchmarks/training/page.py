"""The page docs/results/training.md and its plots, from the stored results."""

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from numpy.typing import NDArray

import ofa
from benchmarks.agreement import Floats, agreement, mean_std, std
from benchmarks.jobs import read
from benchmarks.page import save_plot, table, write_page
from benchmarks.training.results import COSTS, alone_key, phase_key, seed_path, supernet_key
from benchmarks.training.strategies import BATCH, COMPARED_WITH_ALONE, LARGE, RECIPES, REFERENCE, TRAININGS
from benchmarks.training.tasks import N_TRAIN, TASKS, random_archs, spread_archs

Results = list[dict[str, Any]]
"""For each seed, the results by key."""


def write_training_page(n_seeds: int) -> None:
    """Write the page from the results stored so far; a section uses the seeds that have all of its results."""
    results = [read(seed_path(seed)) for seed in range(n_seeds)]
    introduction = f"""
# Training: do subnets need retraining?

Here they do not: on average, subnets extracted from a supernet are at least as accurate as the same networks trained
alone for as many epochs. The last section compares training strategies at equal cost.

Made by `python -m benchmarks.training {n_seeds}`. All trainings use the same {N_TRAIN:,} images of Fashion-MNIST in
batches of {BATCH}. Accuracies are means over seeds on all 10,000 test images; ±: their standard deviation. Two
trainings run at once, one thread each. The number of images, the learning rates and the number of archs per step of the
default strategy were chosen on another seed.

The result depends on the number of images. With as many steps over 4,000 images (40 epochs), subnets were 0.5 to 1.0
points below networks trained alone (6 archs, one seed, two learning rates); over 1,000 images (160 epochs), 0.4 points
above (8 archs, one seed). With twice the steps over 4,000 images (80 epochs, 20 archs, one seed), they were 0.3 points
below on average: 1.0 below for the 8 smallest, 1 to 2 above for the 2 largest; Kendall tau 0.64.
"""
    sections = [part for task in TASKS for part in inheritance_sections(results, task)]
    write_page("training", introduction, *sections, *strategy_sections(results))


def inheritance_sections(results: Results, name: str) -> list[str]:
    """Compare a task's subnets with the same networks trained alone: summary, plot and table."""
    task, supernet = TASKS[name], supernet_key(name, COMPARED_WITH_ALONE)
    alone_keys = [alone_key(name, i) for i in range(task.n_alone)]
    results = [result for result in results if {supernet, *alone_keys} <= result.keys()]
    if not results:
        return []
    family = task.create_family()
    archs = spread_archs(family, task.n_alone)
    macs_m = ofa.macs_m(family)(family.space.rows(archs))
    inherited = np.array([top1_percent(result[supernet]["spread"]) for result in results])  # seeds x archs
    alone = np.array([top1_percent(result[key]["top1_percent"] for key in alone_keys) for result in results])
    plot_inheritance(name, f"{family.name}, {task.epochs} epochs", macs_m, inherited=inherited, alone=alone)
    rows = [
        f"{macs_m[i]:.2f} | {arch['resolution']} | {mean_std(inherited[:, i])} | {mean_std(alone[:, i])} "
        f"| {mean_std(inherited[:, i] - alone[:, i], '+.2f')}"
        for i, arch in enumerate(archs)
    ]
    description = f"""
{len(archs)} archs at even distances in log MACs, {len(results)} seeds. *Inherited*: extracted from the supernet
({LARGE}), BatchNorm re-estimated.
*Alone*: the same network trained on its own, from the labels, for {task.epochs} epochs, as many as the supernet, with
the same augmentation, optimizer and schedule. Test top-1 in percent."""
    return [
        f"## `{family.name}`: inherited weights against training alone",
        description,
        agreement(inherited, alone),
        f"![inherited and alone](training-{name}.svg)",
        table("MACs M | pixels | inherited % | alone % | gap", rows),
    ]


def plot_inheritance(name: str, title: str, macs_m: Floats, *, inherited: Floats, alone: Floats) -> None:
    figure, axes = plt.subplots(figsize=(6, 4))
    for label, percent in (("inherited", inherited), ("trained alone", alone)):
        axes.errorbar(macs_m, percent.mean(0), std(percent), marker="o", capsize=3, label=label)
    axes.set(xscale="log", xlabel="MACs, millions", ylabel="test top-1, %", title=title)
    axes.legend()
    save_plot(figure, f"training-{name}")


def strategy_sections(results: Results) -> list[str]:
    """Compare the strategies: plot, table, and those at half the cost against the reference."""
    family = TASKS["cnn"].create_family()
    by_macs = np.argsort(ofa.macs_m(family)(family.space.rows(random_archs(family))))
    epoch_seconds, rows, columns = read(COSTS).get("cnn", {}), [], {}
    for name, training in TRAININGS.items():
        key = supernet_key("cnn", name)
        trained = [result[key] for result in results if key in result]
        if trained:
            columns[name], epochs = accuracy_columns(trained, by_macs), trained[0]["epochs"]
            seconds = sum(n * epoch_seconds[phase_key(training.strategy, i)] for i, n in enumerate(epochs))
            accuracies = " | ".join(map(mean_std, columns[name].values()))
            rows.append(f"{name} | {len(trained)} | {' + '.join(map(str, epochs))} | {seconds:.0f} | {accuracies}")
    if not columns:
        return []
    plot_strategies(columns)
    description = f"""
The cost of an epoch of each phase was measured in interleaved rounds with nothing else running. Each strategy gets as
many epochs as cost {TRAININGS[REFERENCE].cost_share:.2f} of the supernet above, up to rounding. Test top-1 in percent:
of the smallest and the largest network; of those with the least, median and most MACs among 50 random archs, the same
for all strategies; and the mean of these 50. `{REFERENCE}` has once-for-all's stages, shares of epochs and learning
rates (arXiv 1908.09791). The recipes for Fashion-MNIST use `{RECIPES}`
([why](../training.md#what-the-subnets-are-worth))."""
    return [
        f"## Strategies at equal cost, `{family.name}`",
        description,
        "![strategies](training-strategies.svg)",
        table(f"strategy | seeds | epochs | cost, s | {' | '.join(next(iter(columns.values())))}", rows),
        half_cost_summary(results),
    ]


def accuracy_columns(trained: Results, by_macs: NDArray[np.int64]) -> dict[str, Floats]:
    """Return the columns of the table, each with a value per seed; `by_macs` sorts the random archs."""
    spread, random = (np.array([top1_percent(one[key]) for one in trained]) for key in ("spread", "random"))
    return {
        "smallest": spread[:, 0],
        "least of 50": random[:, by_macs[0]],
        "median of 50": random[:, by_macs[len(by_macs) // 2]],
        "most of 50": random[:, by_macs[-1]],
        "largest": spread[:, -1],
        "mean of 50": random.mean(1),
    }


def plot_strategies(columns: dict[str, dict[str, Floats]]) -> None:
    """Plot the accuracies of the smallest, the median and the largest network for each strategy."""
    figure, axes = plt.subplots(figsize=(7, 4.5))
    for label in ("smallest", "median of 50", "largest"):
        values = [of_strategy[label] for of_strategy in columns.values()]
        means, errors = [percent.mean() for percent in values], [std(percent) for percent in values]
        axes.errorbar(means, np.arange(len(values)), xerr=errors, fmt="o", capsize=3, label=label)
    axes.set_yticks(range(len(columns)), list(columns), fontsize=8)
    axes.invert_yaxis()
    axes.grid(axis="x", alpha=0.3)
    axes.set(xlabel="test top-1, %", title="strategies at equal cost")
    axes.legend(fontsize=8)
    save_plot(figure, "training-strategies")


def half_cost_summary(results: Results) -> str:
    """Compare cheaper trainings with the reference, by their means over the random archs."""
    reference, lines = supernet_key("cnn", REFERENCE), [f"At half the cost, against `{REFERENCE}` at the full cost:\n"]
    for name, training in TRAININGS.items():
        keys = supernet_key("cnn", name), reference
        trained = [[result[key]["random"] for key in keys] for result in results if set(keys) <= result.keys()]
        if training.cost_share < TRAININGS[REFERENCE].cost_share and trained:
            half, full = np.array([[np.mean(top1_percent(some)) for some in pair] for pair in trained]).T
            gaps = mean_std(half - full, "+.2f")
            lines.append(f"- `{training.strategy}`: {mean_std(half)} on average over the 50 archs, {gaps} points.")
    return "\n".join(lines) if len(lines) > 1 else ""


def top1_percent(accuracies: Any) -> list[float]:
    return [accuracy["test"] for accuracy in accuracies]
