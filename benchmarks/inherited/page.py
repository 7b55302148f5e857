"""The page docs/results/inherited.md and its plots, from the stored results."""

from itertools import product

import matplotlib.pyplot as plt
import numpy as np
from scipy.stats import kendalltau

import ofa
from benchmarks.agreement import Floats, mean_std, mean_tau, std
from benchmarks.inherited.jobs import GRADIENT_STEPS
from benchmarks.inherited.results import COSTS, GRADIENTS, alone_percent, cost_key, finetuned, inherited_percent
from benchmarks.inherited.strategies import RECIPES, SANDWICH, TRAININGS
from benchmarks.inherited.tasks import FINETUNE_EPOCHS, FINETUNED_ARCHS, N_RANDOM, N_SPREAD, TASKS
from benchmarks.jobs import read
from benchmarks.page import save_plot, table, write_page


def write_inherited_page(seeds: range) -> None:
    """Write the page from the results stored so far."""
    introduction = f"""
# Inherited against alone, on all images

Subnets of supernets for Fashion-MNIST, against the same networks trained alone by a plain loop with the same images,
augmentation, schedule and moving average, in batches of 128, for 12 epochs, by SGD with a learning rate of their own
({", ".join(f"{task.alone_lr:g} for {task.family.name}" for task in TASKS.values())}). BatchNorm statistics are
re-estimated for both. Top-1 in percent on the 10,000 test images; means over seeds, ±: standard deviation.

Made by `python -m benchmarks.inherited {len(seeds)}`; two trainings run at once, one thread each.
"""
    write_page("inherited", introduction, *(part for name in TASKS for part in _task_sections(name, seeds)))


def _task_sections(name: str, seeds: range) -> list[str]:
    task = TASKS[name]
    alone = alone_percent(name, seeds, N_SPREAD)
    inherited = {training: inherited_percent(name, training, seeds) for training in TRAININGS}
    inherited = {training: percent for training, percent in inherited.items() if len(percent)}
    recipe = RECIPES[name]
    if not len(alone) or recipe not in inherited:
        return []
    macs_m = ofa.macs_m(task.family)(task.family.space.rows(task.archs))
    _plot(name, macs_m[:N_SPREAD], alone, {one: percent[:, :N_SPREAD] for one, percent in inherited.items()})
    ours = inherited[recipe]
    rows = [
        f"{macs_m[i]:.2f} | {task.archs[i]['resolution']} | {mean_std(ours[:, i])} | {_known(alone[:, i])} "
        f"| {_signed(ours[:, i].mean() - _means(alone)[i])}"
        for i in range(N_SPREAD)
    ]
    costs = {cost_key(name, one): "" for one in inherited} | read(COSTS) | {cost_key(name, SANDWICH): 1.0}
    trainings = [
        f"{training} | {len(percent)} | {costs[cost_key(name, training)]} | {gap_cells(percent[:, :N_SPREAD], alone)}"
        for training, percent in inherited.items()
    ]
    trainings.append(f"each network alone | {len(alone)} | | | | | {_largest_fall(_means(alone)):.2f}")
    return [
        f"## `{task.family.name}`, recipe `{task.recipe.name}`",
        f"{N_SPREAD} archs at even distances in log MACs. Seeds: {len(ours)} of supernets, trained by `{recipe}` as in "
        f"the recipe, {len(alone)} of networks alone. Empty cells: not trained yet.",
        table("MACs M | pixels | inherited % | alone % | gap", rows),
        f"![inherited and alone](inherited-{name}.svg)",
        *_fits(name, macs_m, seeds),
        *_ranking(ours, alone_percent(name, seeds, N_SPREAD + N_RANDOM)),
        "Strategies; their cost in processor time, relative to the sandwich's:",
        table("strategy | seeds | cost | mean gap | worst gap | gap by size | largest fall", trainings),
        *_gradients(name, macs_m),
        *_finetuning(name, macs_m, alone, seeds),
    ]


def _fits(name: str, macs_m: Floats, seeds: range) -> list[str]:
    """Return the table of accuracies on training images, of the archs that were scored there; nothing if none was."""
    n = N_SPREAD + N_RANDOM
    alone, alone_test = (_means(alone_percent(name, seeds, n, split)) for split in ("train", "test"))
    inherited, inherited_test = (
        _means(inherited_percent(name, RECIPES[name], seeds, split)) for split in ("train", "test")
    )
    if not len(inherited) or np.isnan(alone).all():
        return []
    gap, test_gap = inherited - alone, inherited_test - alone_test
    scored = [i for i in np.argsort(macs_m) if not np.isnan(gap[i])]
    rows = [
        f"{macs_m[i]:.2f} | {inherited[i]:.2f} | {alone[i]:.2f} | {gap[i]:+.2f} | {test_gap[i]:+.2f}" for i in scored
    ]
    return [
        "Do subnets fit less, or generalize less? Top-1 on as many training images, not augmented, as test images:",
        table(
            "MACs M | inherited, training images % | alone % | gap | gap on test images",
            [*rows, f"mean | | | {gap[scored].mean():+.2f} | {test_gap[scored].mean():+.2f}"],
        ),
    ]


def _ranking(inherited: Floats, alone: Floats) -> list[str]:
    """Say how inherited accuracies and those alone, both `[seeds, archs]`, agree in rank, once all archs are there."""
    of_alone = _means(alone)
    if np.isnan(of_alone).any():
        return []
    tau = kendalltau(inherited.mean(0), of_alone).statistic
    lines = [
        f"- Kendall tau between inherited and alone, means over the seeds that are there: {tau:.3f}; between one seed "
        f"of supernets and the same: {mean_tau((one, of_alone) for one in inherited)}."
    ]
    twice = alone[:2, ~np.isnan(alone[:2]).any(axis=0)]
    if len(twice) == 2 and twice.shape[1] > 2:
        lines.append(f"- Between two seeds of networks alone, over {twice.shape[1]} archs: {mean_tau([tuple(twice)])}.")
    return [f"With {N_RANDOM} random archs beside them:", "\n".join(lines)]


def _finetuning(name: str, macs_m: Floats, alone: Floats, seeds: range) -> list[str]:
    """Return the table of finetuned subnets, each against what it inherited; nothing if none is there."""
    rows = []
    inherited = {seed: inherited_percent(name, RECIPES[name], range(seed, seed + 1)) for seed in seeds}
    for arch, epochs in product(FINETUNED_ARCHS, FINETUNE_EPOCHS):
        results = finetuned(name, RECIPES[name], arch, epochs, seeds)
        if not results:
            continue
        percent = np.array([one["test"] for one in results.values()])
        before = np.mean([inherited[seed][0, arch] for seed in results])
        gains = [_signed(percent.mean() - others) for others in (before, _means(alone)[arch])]
        minutes = np.mean([one["minutes"] for one in results.values()])
        rows.append(
            f"{macs_m[arch]:.2f} | {epochs} | {len(results)} | {mean_std(percent)} "
            f"| {gains[0]} | {gains[1]} | {minutes:.1f}"
        )
    if not rows:
        return []
    head = "MACs M | epochs | seeds | finetuned % | over inherited | over alone | processor minutes"
    return [
        f"Subnets of the supernets trained by `{RECIPES[name]}`, finetuned as the stage `finetune` does by default:",
        table(head, rows),
    ]


def _gradients(name: str, macs_m: Floats) -> list[str]:
    """Return tables of cosines between gradients; nothing if they were not measured."""
    cosines = read(GRADIENTS).get(name)
    if cosines is None:
        return []
    sizes = [f"{macs_m[arch]:.2f} M" for arch in FINETUNED_ARCHS]
    tables = {
        kind: table(
            " | ".join(["MACs", *sizes]),
            [" | ".join([size, *(f"{x:.2f}" for x in row)]) for size, row in zip(sizes, rows, strict=True)],
        )
        for kind, rows in cosines.items()
    }
    return [
        f"Cosines between the gradients of archs after {GRADIENT_STEPS} steps of the recipe, on the same 128 images:",
        tables["same"],
        "On two different batches, which is what both gradients have in common beside the noise of the images:",
        tables["other"],
    ]


def gap_cells(inherited: Floats, alone: Floats) -> str:
    """Return cells with the mean gap, the worst, all of them in order of size, and the largest fall along the sizes.

    Archs that were not trained alone, NaN in `alone`, are left out of the first two and `?` in the third.
    """
    means = inherited.mean(0)
    gaps = means - _means(alone)
    of_sizes = " ".join("?" if np.isnan(gap) else f"{gap:+.1f}" for gap in gaps)
    return f"{np.nanmean(gaps):+.2f} | {np.nanmin(gaps):+.2f} | {of_sizes} | {_largest_fall(means):.2f}"


def _largest_fall(percent: Floats) -> float:
    """Return how far accuracy falls at most from an arch to the next that is known, in order of size; 0 if it rises."""
    return float(max(0, -np.diff(percent[~np.isnan(percent)]).min()))


def _means(percent: Floats) -> Floats:
    """Return means over the seeds that are there, NaN for archs that no seed has."""
    means: Floats = np.ma.masked_invalid(percent).mean(axis=0).filled(np.nan)
    return means


def _known(percent: Floats) -> str:
    """Return the mean and spread over the seeds of one arch that are there, if any."""
    there = percent[~np.isnan(percent)]
    return mean_std(there) if len(there) else ""


def _signed(gap: float) -> str:
    return "" if np.isnan(gap) else f"{gap:+.2f}"


def _plot(name: str, macs_m: Floats, alone: Floats, inherited: dict[str, Floats]) -> None:
    figure, axes = plt.subplots(figsize=(6.5, 4.5))
    for label, percent in {"trained alone": alone, **inherited}.items():
        means, there = _means(percent), ~np.isnan(percent).all(axis=0)
        spread = [std(one[~np.isnan(one)]) for one in percent.T[there]]
        axes.errorbar(macs_m[there], means[there], spread, marker="o", capsize=3, label=label)
    axes.set(xscale="log", xlabel="MACs, millions", ylabel="test top-1, %", title=TASKS[name].family.name)
    axes.set_xticks(macs_m, [f"{value:.2g}" for value in macs_m])
    axes.minorticks_off()
    axes.legend(fontsize=8)
    save_plot(figure, f"inherited-{name}")
