"""Predictors on archs of our own supernets: `python -m benchmarks.search.own TASK SUPERNET`, or `... own digits`.

Random archs are measured once, on all validation and test images, and kept in `runs/own/`. Predictors are fitted to
validation accuracies, as in a run, and judged by Kendall's tau on other archs, whose accuracies are estimated from the
images of both splits. For the CNN, a supernet of the same family is trained on digits, and predictors are started from
its archs. With `digits`, supernets of both families are, and predictors of one are started from the archs of the other.
Results are kept in docs/results/search/own.json.
"""

import argparse
import json
from dataclasses import dataclass
from functools import partial
from itertools import permutations, product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

import ofa
from benchmarks.inherited.tasks import TASKS, Task
from benchmarks.search.store import kept
from ofa.core.files import write_json
from ofa.data.dataset import Data
from ofa.pipeline.earlier import moved_summary
from ofa.pipeline.predictor import features
from ofa.predict import create, judge
from ofa.predict.denoise import denoised_percent

FOLDER = Path("runs/own")
N_ARCHS, N_JUDGED = 500, 200
CASES = {"mlp": (300,), "auto": (50, 100, 300), "gp": (50, 100, 300), "gp with synflow": (50, 100, 300)}
"""Archs that predictors are fitted to; *with synflow*, they also read MACs, parameters and synflow."""
STARTED = (20, 50, 100)
"""Archs that `gp` is fitted to alone, and started from all archs of the digits, or of another family."""
DIGITS = "digits"

Columns = dict[str, NDArray[np.float64]]


@dataclass(frozen=True)
class _Digits(Task):
    """The family of another task, on digits."""

    other: Task

    @property
    def family(self) -> ofa.Family:
        return self.other.family

    @property
    def data(self) -> Data:
        return ofa.load_data(self.recipe.data)


def key(task: str, predictor: str, n_archs: int, seed: int) -> str:
    """Return the name of a result."""
    return f"{task}, {predictor}, {n_archs} archs, seed {seed}"


def _digits(task: str) -> tuple[Task, Any, Columns]:
    """Return a task's family on digits, rows, and accuracies of a supernet that is trained if it is not there."""
    of, folder = _Digits("digits", 0.0, TASKS[task]), FOLDER / f"digits-{task}"
    path = folder / "supernet.safetensors"
    if not path.exists():
        supernet, config = ofa.Supernet(of.family, seed=0), of.recipe.train
        ofa.train(supernet, of.data, config, folder=folder, augment=of.recipe.data.augment, seed=0)
        supernet.save(path)
    return of, *measured(f"digits-{task}", of, path)


def measured(name: str, of: Task, supernet_path: Path) -> tuple[Any, Columns]:
    """Return random rows of the task's space, and their accuracies and losses by split; measured if they are not."""
    path = FOLDER / f"{name}.json"
    drawn = of.family.space.sample(2 * N_ARCHS, np.random.default_rng(21))
    rows = of.family.space.unique(drawn)[:N_ARCHS]
    scores: dict[str, list[float]] = json.loads(path.read_text()) if path.exists() else {}
    missing = sorted((i for i in range(len(rows)) if str(i) not in scores), key=lambda i: _resolution(of, rows[i]))
    supernet = ofa.Supernet.load(supernet_path, of.family) if missing else None
    batches: dict[int, list[Any]] = {}
    for n, i in enumerate(missing, 1):
        assert supernet is not None
        resolution = _resolution(of, rows[i])
        if resolution not in batches:
            load = partial(ofa.eval_batches, of.data, resolution=resolution)
            training = load(of.data.train, limit=of.recipe.sample.calibration_images)
            batches = {resolution: [training, load(of.data.validation), load(of.data.test)]}
        network = supernet.extract(of.family.space.decode(rows[i])).to(memory_format=torch.channels_last)
        ofa.calibrate(network, batches[resolution][0])
        results = [ofa.evaluate(network, part) for part in batches[resolution][1:]]
        scores[str(i)] = [value for one in results for value in (one.top1_percent, one.loss)]
        if n % 20 == 0 or n == len(missing):
            path.parent.mkdir(parents=True, exist_ok=True)
            write_json(path, scores)
            print(f"{name}: {n} of {len(missing)}", flush=True)
    columns = np.array([scores[str(i)] for i in range(len(rows))]).T
    return rows, dict(zip(("val_percent", "val_loss", "test_percent", "test_loss"), columns, strict=True))


def _resolution(of: Task, row: Any) -> int:
    return int(of.family.space.decode(row)["resolution"])


def _estimated(of: Task, scores: Columns) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the accuracies of a run, from validation images, and those from the images of both splits."""
    n_val, n_test = len(of.data.validation), len(of.data.test)
    both = [(n_val * scores[f"val_{k}"] + n_test * scores[f"test_{k}"]) / (n_val + n_test) for k in ("percent", "loss")]
    return (
        denoised_percent(scores["val_percent"], scores["val_loss"], n_val),
        denoised_percent(both[0], both[1], n_val + n_test),
    )


def _tau(of: Task, scores: Columns, rows: Any, name: str, n: int, seed: int, start_from: list[Any]) -> float:
    order = np.random.default_rng(seed).permutation(len(rows))
    seen, judged = order[:n], order[-N_JUDGED:]
    run_percent, true_percent = _estimated(of, scores)
    name, _, more = name.partition(" with ")
    own = features(of.family, ("macs_m", "params_m", "synflow") if more else ())
    predictor = create(name, of.family, features=own, start_from=start_from, seed=seed)
    predictor.fit(rows[seen], run_percent[seen])
    return judge(predictor.predict(rows[judged]), true_percent[judged]).kendall_tau


def across_families(n_seeds: int) -> None:
    """Fit `gp` to archs of each family on digits, alone and started from what those of the other family tell."""
    parts = {task: _digits(task) for task in TASKS}
    for (task, (of, rows, scores)), (other, (other_of, other_rows, other_scores)) in permutations(parts.items(), 2):
        run_percent, _ = _estimated(other_of, other_scores)
        moved = moved_summary(other_of.family, other_rows, run_percent, of.family)
        tau = partial(_tau, of, scores, rows)
        for seed, n in product(range(n_seeds), STARTED):
            kept("own", key(f"{DIGITS}, {task}", "gp", n, seed), partial(tau, "gp", n, seed, []))
            kept("own", key(f"{DIGITS}, {task}", f"gp from {other}", n, seed), partial(tau, "gp", n, seed, [moved]))


def main() -> None:
    """Measure what is missing and print the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("task", choices=[*sorted(TASKS), DIGITS])
    parser.add_argument("supernet", type=Path, nargs="?", help="of the task, unless that is digits")
    parser.add_argument("--seeds", type=int, default=10)
    arguments = parser.parse_args()
    if arguments.task == DIGITS:
        across_families(arguments.seeds)
        return
    if arguments.supernet is None:
        parser.error(f"task {arguments.task} needs a SUPERNET, as `ofa train` writes it")
    task, of = arguments.task, TASKS[arguments.task]
    rows, scores = measured(task, of, arguments.supernet)
    tau = partial(_tau, of, scores, rows)
    for seed, (name, sizes) in product(range(arguments.seeds), CASES.items()):
        for n in sizes:
            kept("own", key(task, name, n, seed), partial(tau, name, n, seed, []))
    if task == "cnn":
        digits, early_rows, early_scores = _digits(task)
        earlier = create("gp", digits.family).fit(early_rows, _estimated(digits, early_scores)[1])
        for seed, n in product(range(arguments.seeds), STARTED):
            kept("own", key(task, "gp", n, seed), partial(tau, "gp", n, seed, []))
            kept("own", key(task, "gp from digits", n, seed), partial(tau, "gp", n, seed, [earlier]))


if __name__ == "__main__":
    main()
