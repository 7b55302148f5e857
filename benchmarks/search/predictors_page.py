"""The page docs/results/predictors.md and its plot, from the stored results."""

from itertools import permutations, product

import matplotlib.pyplot as plt
import numpy as np

from benchmarks.inherited.tasks import TASKS
from benchmarks.jobs import read
from benchmarks.page import save_plot, table, write_page
from benchmarks.search import own
from benchmarks.search.predictors import DATA, N_EARLIER, NAMES, SIZES, STARTED_SIZES, key, started_key
from benchmarks.search.store import FOLDER
from benchmarks.search.tables import Floats

_OWN_SIZES = (20, 50, 100, 300)
_PUBLISHED = {"NAS-Bench-201": "PINAT: 0.549 / 0.631 / 0.706 (AAAI 2023)."}


def write_predictors_page(seeds: range) -> None:
    """Write the page from the results stored so far."""
    introduction = """
# Accuracy predictors on published tables

Made by `make bench-search TABLES=DIR`; tables are read where they lie. Kendall's tau on archs that were not seen, means
over seeds, ±: standard deviation. *In interval*: share of their accuracies within the 90 % intervals, at the largest
number of archs. *Seconds*: processor time of that fit.
"""
    write_page("predictors", introduction, *_tables(seeds), *_started(seeds), *_own(seeds))


def _tables(seeds: range) -> list[str]:
    sections, results = list[str](), read(FOLDER / "predictors.json")
    figure, axes = plt.subplots(1, len(SIZES), figsize=(3.6 * len(SIZES), 3.4))
    for axis, (name, sizes) in zip(axes, SIZES.items(), strict=True):
        rows = []
        for predictor in NAMES:
            of_sizes = [[results.get(key(name, predictor, n, seed)) for seed in seeds] for n in sizes]
            complete = [[one for one in of_size if one] for of_size in of_sizes]
            if not all(complete):
                continue
            tau = [np.array([one["kendall_tau"] for one in of_size]) for of_size in complete]
            cells = " | ".join(f"{x.mean():.3f} ± {x.std():.3f}" for x in tau)
            last = {quantity: np.mean([one[quantity] for one in complete[-1]]) for quantity in complete[-1][0]}
            n_seeds = min(map(len, complete))
            rows.append(
                f"`{predictor}` | {n_seeds} | {cells} | {last['coverage_percent']:.0f} % | {last['seconds']:.0f}"
            )
            axis.plot(sizes, [x.mean() for x in tau], marker="o", label=predictor)
        if not rows:
            continue
        axis.set(title=name, xlabel="archs", xscale="log")
        axis.set_xticks(sizes, map(str, sizes), minor=False)
        axis.minorticks_off()
        head = " | ".join(["predictor", "seeds", *(f"{n} archs" for n in sizes), "in interval", "seconds"])
        sections += [f"## {name}", table(head, rows), _PUBLISHED.get(name, "")]
    axes[0].set_ylabel("Kendall's tau")
    axes[0].legend(fontsize=7)
    save_plot(figure, "predictors")
    return [part for part in (*sections, "![Kendall's tau by the number of archs](predictors.svg)") if part]


def _started(seeds: range) -> list[str]:
    results, rows = read(FOLDER / "predictors.json"), list[str]()
    for data in DATA:
        found = [results[one] for seed in seeds if (one := started_key(data, seed)) in results]
        for way in ("alone", "started") if found else ():
            tau: Floats = np.array([one[way] for one in found])
            cells = " | ".join(f"{x.mean():.3f} ± {x.std():.3f}" for x in tau.T)
            rows.append(f"{data} | {way} | {len(found)} | {cells}")
    if not rows:
        return []
    text = f"""
`gp` on NAS-Bench-201: alone, or *started* from one that was fitted to {N_EARLIER} cells on CIFAR-10 (`start_from`).
"""
    head = " | ".join(["data", "predictor", "seeds", *(f"{n} archs" for n in STARTED_SIZES)])
    return ["## Knowledge of earlier runs", text, table(head, rows)]


def _own(seeds: range) -> list[str]:
    results, rows = read(FOLDER / "own.json"), list[str]()
    cases = [*product(TASKS, (*own.CASES, "gp from digits"))]
    for task, other in permutations(TASKS):
        cases += product([f"{own.DIGITS}, {task}"], ["gp", f"gp from {other}"])
    for task, predictor in cases:
        cells = []
        for n in _OWN_SIZES:
            taus = [results[one] for seed in seeds if (one := own.key(task, predictor, n, seed)) in results]
            cells.append(f"{np.mean(taus):.3f} ± {np.std(taus):.3f}" if taus else "")
        if any(cells):
            rows.append(f"{task} | `{predictor}` | {' | '.join(cells)}")
    if not rows:
        return []
    text = f"""
`python -m benchmarks.search.own TASK SUPERNET`: subnets of a supernet trained on all of Fashion-MNIST, fitted to
validation accuracies as in a run, judged on {own.N_JUDGED} others whose accuracies are estimated from all validation
and test images. *gp from digits*: started from {own.N_ARCHS} archs of a supernet of the same family trained on
scikit-learn's digits. *digits*: supernets trained on these (`... own digits`); *from* the other family by a summary.
"""
    head = " | ".join(["task", "predictor", *(f"{n} archs" for n in _OWN_SIZES)])
    return ["## Our own supernets", text, table(head, rows)]
