"""One training of the comparison, in a process of its own: `python -m benchmarks.training.jobs SETTINGS RESULT`."""

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
from torch import nn

import ofa
from benchmarks.alone import Scorer, train_alone
from benchmarks.training.results import phase_key
from benchmarks.training.strategies import BATCH, COMMON, LR, STRATEGIES, train_config
from benchmarks.training.tasks import DATA, TASKS, Task, load_data, random_archs, spread_archs
from ofa.core import distributed
from ofa.core.files import write_json

COST_STEPS, COST_ROUNDS = 10, 3


def main(settings_path: Path, result_path: Path) -> None:
    torch.set_num_threads(1)  # two trainings at once use two cores better than one training on both
    settings = json.loads(settings_path.read_text())
    job, task = JOBS[settings.pop("kind")], TASKS[settings.pop("task")]
    with distributed.joined():
        result = job(task, **settings)
        if distributed.rank() == 0:
            write_json(result_path, result)


def _costs(task: Task) -> dict[str, float]:
    """Return the seconds of an epoch of every phase of every strategy, measured in interleaved rounds."""
    steps_per_epoch = len(load_data().train) // BATCH
    seconds: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder, "weights.safetensors")  # later phases need weights to start from
        ofa.Supernet(task.create_family()).save(weights)
        for _ in range(COST_ROUNDS):
            for name, strategy in STRATEGIES.items():
                for i, phase in enumerate(strategy["phases"]):
                    single = {"phases": [phase | {"epochs": 1}], "initial_weights": str(weights)}
                    config = ofa.TrainConfig.model_validate(COMMON | strategy | single)
                    seconds.setdefault(phase_key(name, i), []).append(_step_seconds(task, config) * steps_per_epoch)
    return {key: float(np.median(values)) for key, values in seconds.items()}


def _step_seconds(task: Task, config: ofa.TrainConfig) -> float:
    """Return the median over the first steps of a training, loading included."""
    times: list[float] = []

    def stop_early(done: int, *_: Any) -> None:
        times.append(time.perf_counter())
        if done > COST_STEPS:
            raise InterruptedError

    with suppress(InterruptedError):
        _train(ofa.Supernet(task.create_family()), config, on_progress=stop_early)
    return float(np.median(np.diff(times)))


def _train(supernet: ofa.Supernet, config: ofa.TrainConfig, **options: Any) -> None:
    macs_m = ofa.macs_m(supernet.family)
    with tempfile.TemporaryDirectory() as folder:
        ofa.train(supernet, load_data(), config, folder=Path(folder), augment=DATA.augment, macs_m=macs_m, **options)


def _supernet(
    task: Task, *, strategy: str, seed: int, epochs: list[int], different_archs: bool = False
) -> dict[str, Any]:
    """Train a supernet; return seconds, epochs and the accuracies of `spread_archs` and `random_archs`."""
    supernet, start = ofa.Supernet(task.create_family(), seed=seed), time.perf_counter()
    _train(supernet, train_config(strategy, epochs, different_archs), seed=seed)
    result: dict[str, Any] = {"seconds": time.perf_counter() - start, "epochs": epochs}
    if distributed.rank() == 0:
        archs = {"spread": spread_archs(supernet.family, task.n_alone), "random": random_archs(supernet.family)}
        result |= {key: [_top1_percent(supernet.extract(arch), arch) for arch in some] for key, some in archs.items()}
    return result


def _alone(task: Task, *, arch: dict[str, Any], seed: int, epochs: int) -> dict[str, Any]:
    """Train one static network by a plain loop with the settings of the supernets' trainings, and evaluate it."""
    family, data = task.create_family(), load_data()
    checked_arch = family.space.arch(arch)
    settings = {"phases": [{"strategy": "full", "epochs": epochs}], "lr": LR["full"]}
    config = ofa.TrainConfig.model_validate(COMMON | settings)
    start = time.perf_counter()
    build, resolution = partial(family.build, checked_arch), int(checked_arch["resolution"])
    network = train_alone(build, resolution, data, DATA.augment, config, seed)
    seconds = time.perf_counter() - start
    return {"top1_percent": _top1_percent(network, checked_arch), "seconds": seconds}


JOBS: dict[str, Callable[..., Any]] = {"costs": _costs, "supernet": _supernet, "alone": _alone}


def _top1_percent(network: nn.Module, arch: ofa.Arch) -> dict[str, float]:
    """Return validation and test accuracies; BatchNorm statistics are re-estimated on training images."""
    return _scorer()(network, int(arch["resolution"]))


@cache
def _scorer() -> Scorer:
    return Scorer(load_data(), calibration_images=2000)


if __name__ == "__main__":
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="grad and param do not obey the gradient layout contract")
        main(Path(sys.argv[1]), Path(sys.argv[2]))
