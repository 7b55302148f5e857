"""One training of the comparison: `python -m benchmarks.inherited.jobs SETTINGS RESULT`."""

import fcntl
import json
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

import ofa
from benchmarks.alone import Scorer, train_alone
from benchmarks.inherited.gradients import gradient_cosines
from benchmarks.inherited.strategies import ALONE, RECIPES, SANDWICH, TRAININGS, train_config
from benchmarks.inherited.tasks import FINETUNED_ARCHS, TASKS
from ofa.core.files import write_json
from ofa.data.loaders import train_batches
from ofa.train.finetune import FinetuneConfig, finetune
from ofa.train.step import TrainingStep
from ofa.train.strategies import Phase

RUNS = Path("runs/inherited")
COST_STEPS, COST_ROUNDS = 12, 3
GRADIENT_STEPS = 1200
"""Steps of the recipe's training after which gradients are compared."""


def main(settings_path: Path, result_path: Path) -> None:
    """Do what the settings say and write the result."""
    torch.set_num_threads(1)  # two trainings at once use two cores better than one training on both
    settings = json.loads(settings_path.read_text())
    write_json(result_path, JOBS[settings.pop("kind")](**settings))


def _alone(task: str, arch: int, seed: int, lr: float | None = None) -> dict[str, float]:
    """Train one static network with the recipe's settings; returns its accuracies by split."""
    of = TASKS[task]
    config = train_config(task, ALONE | {"lr": lr or of.alone_lr})
    checked_arch = of.archs[arch]
    resolution = int(checked_arch["resolution"])
    build = partial(of.family.build, checked_arch)
    network = train_alone(build, resolution, of.data, of.recipe.data.augment, config, seed)
    return _scorer(task)(network, resolution)


def _supernet(task: str, training: str, seed: int) -> list[dict[str, float]]:
    """Train a supernet, or go on with it; returns the accuracies by split of each arch of the task."""
    of = TASKS[task]
    supernet = ofa.Supernet.load(_trained_supernet(task, training, seed), of.family)
    return [_scorer(task)(supernet.extract(arch), int(arch["resolution"])) for arch in of.archs]


def _finetuned(task: str, arch: int, epochs: int, seed: int) -> dict[str, float]:
    """Finetune a subnet of the recipe's supernet as the stage does; returns accuracies by split, processor minutes."""
    of, supernet_path = TASKS[task], _trained_supernet(task, RECIPES[task], seed)
    checked_arch = of.archs[arch]
    resolution = int(checked_arch["resolution"])
    start = time.process_time()
    network = finetune(
        ofa.Supernet.load(supernet_path, of.family).extract(checked_arch),
        of.family,
        resolution,
        of.data,
        FinetuneConfig(epochs=epochs),
        teacher=supernet_path,
        like=train_config(task, TRAININGS[RECIPES[task]][task]),
        folder=_folder(task, f"arch {arch}, {epochs} epochs", seed),
        augment=of.recipe.data.augment,
        seed=seed,
    )
    minutes = (time.process_time() - start) / 60
    return _scorer(task)(network, resolution) | {"minutes": minutes}


def _gradients(task: str, seed: int) -> dict[str, list[list[float]]]:
    """Return how gradients of the labels' loss agree between archs, early in the recipe's training."""
    of, supernet = TASKS[task], ofa.Supernet(TASKS[task].family, seed=seed)

    def stop_early(done: int, *_: Any) -> None:
        if done >= GRADIENT_STEPS:
            raise InterruptedError

    with suppress(InterruptedError), tempfile.TemporaryDirectory() as folder:
        _train(task, supernet, train_config(task, {}), Path(folder), on_progress=stop_early, seed=seed)
    config = train_config(task, {"teacher": "none"})
    size = max(of.family.resolutions)
    batches = train_batches(
        of.data,
        of.recipe.data.augment,
        resolution=lambda _: size,
        batch_size=config.batch_size,
        seed=seed,
        steps=range(16),
    )
    archs = [of.archs[i] for i in FINETUNED_ARCHS]
    return gradient_cosines(TrainingStep(supernet, config, len(of.data.labels)), archs, batches)


def _cost(task: str, training: str) -> float:
    """Return the processor time of a training relative to the sandwich's, from steps of both in interleaved rounds."""
    ratios = []
    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder, "weights.safetensors")  # later phases need weights to start from
        ofa.Supernet(TASKS[task].family).save(weights)
        for _ in range(COST_ROUNDS):
            configs = [train_config(task, TRAININGS[name][task]) for name in (training, SANDWICH)]
            seconds = [sum(_phase_seconds(task, one, phase, weights) for phase in one.phases) for one in configs]
            ratios.append(seconds[0] / seconds[1])
    return round(float(np.median(ratios)), 2)


def _phase_seconds(task: str, config: ofa.TrainConfig, phase: Phase, weights: Path) -> float:
    """Return the processor time of a phase: the median of its first steps, loading included, times their number."""
    of, times = TASKS[task], list[float]()
    single = config.model_copy(update={"phases": [phase], "initial_weights": str(weights)})

    def stop_early(done: int, *_: Any) -> None:
        times.append(time.process_time())
        if done > COST_STEPS:
            raise InterruptedError

    with suppress(InterruptedError), tempfile.TemporaryDirectory() as folder:
        _train(task, ofa.Supernet(of.family), single, Path(folder), on_progress=stop_early)
    steps = len(of.data.train) // config.batch_size * phase.epochs
    return float(np.median(np.diff(times))) * steps


def _train(task: str, supernet: ofa.Supernet, config: ofa.TrainConfig, folder: Path, **options: Any) -> None:
    of = TASKS[task]
    macs_m = ofa.macs_m(of.family)
    ofa.train(supernet, of.data, config, folder=folder, augment=of.recipe.data.augment, macs_m=macs_m, **options)


def _trained_supernet(task: str, training: str, seed: int) -> Path:
    """Return the weights of a training, which is done first if they are not there, by one process for all."""
    folder = _folder(task, training, seed)
    folder.mkdir(parents=True, exist_ok=True)
    weights = folder / "supernet.safetensors"
    with (folder / ".lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not weights.exists():
            supernet = ofa.Supernet(TASKS[task].family, seed=seed)
            _train(task, supernet, train_config(task, TRAININGS[training][task]), folder, seed=seed)
            supernet.save(weights)
    return weights


def _folder(task: str, name: str, seed: int) -> Path:
    return RUNS / f"{task}-{name}-{seed}".replace(" ", "_")


JOBS: dict[str, Callable[..., Any]] = {
    "alone": _alone,
    "supernet": _supernet,
    "finetuned": _finetuned,
    "gradients": _gradients,
    "cost": _cost,
}


@cache
def _scorer(task: str) -> Scorer:
    return Scorer(TASKS[task].data, TASKS[task].recipe.sample.calibration_images)


if __name__ == "__main__":
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="grad and param do not obey the gradient layout contract")
        main(Path(sys.argv[1]), Path(sys.argv[2]))
