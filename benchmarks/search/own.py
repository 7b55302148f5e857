"""Predictors on archs of our own supernets: `python -m benchmarks.search.own TASK SUPERNET [--earlier TASK SUPERNET]`.

Random archs are measured once, on all validation and test images, and kept in `runs/own/`. Predictors are fitted to
validation accuracies, as in a run, and judged by Kendall's tau on other archs, whose accuracies are estimated from the
images of both splits. Results are kept in docs/results/search/own.json.
"""

import argparse
import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import ofa
from benchmarks.inherited.tasks import TASKS, Task
from benchmarks.search.store import kept
from ofa.core.files import write_json
from ofa.predict import create, judge
from ofa.predict.denoise import denoised_percent

FOLDER = Path("runs/own")
N_ARCHS, N_JUDGED = 600, 300
CASES = {"mlp": (300,), "auto": (50, 100, 300), "gp": (50, 100, 300)}
"""Archs that predictors are fitted to."""
STARTED = (20, 50, 100)
"""Archs that predictors are fitted to with and without an earlier supernet."""

Columns = dict[str, NDArray[np.float64]]


def measured(task: str, supernet_path: Path) -> tuple[Any, Columns]:
    """Return random rows of the task's space, and their accuracies and losses by split; measured if they are not."""
    of, path = TASKS[task], FOLDER / f"{task}.json"
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
        network = supernet.extract(of.family.space.decode(rows[i]))
        ofa.calibrate(network, batches[resolution][0])
        results = [ofa.evaluate(network, part) for part in batches[resolution][1:]]
        scores[str(i)] = [value for one in results for value in (one.top1_percent, one.loss)]
        if n % 20 == 0 or n == len(missing):
            path.parent.mkdir(parents=True, exist_ok=True)
            write_json(path, scores)
            print(f"{task}: {n} of {len(missing)}", flush=True)
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
    predictor = create(name, of.family, start_from=start_from, seed=seed).fit(rows[seen], run_percent[seen])
    return judge(predictor.predict(rows[judged]), true_percent[judged]).kendall_tau


def main() -> None:
    """Measure what is missing and print the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("task", choices=sorted(TASKS))
    parser.add_argument("supernet", type=Path)
    parser.add_argument("--seeds", type=int, default=10)
    arguments = parser.parse_args()
    of = TASKS[arguments.task]
    rows, scores = measured(arguments.task, arguments.supernet)
    for seed in range(arguments.seeds):
        for name, sizes in CASES.items():
            for n in sizes:
                key = f"{arguments.task}, {name}, {n} archs, seed {seed}"
                kept("own", key, partial(_tau, of, scores, rows, name, n, seed, []))


if __name__ == "__main__":
    main()
