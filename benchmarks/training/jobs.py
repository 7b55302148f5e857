"""One training of the comparison, in a process of its own: `python -m benchmarks.training.jobs JOB RESULT`."""

from __future__ import annotations

import json
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from timm.optim import create_optimizer_v2
from timm.utils import ModelEmaV3
from torch import nn

from benchmarks.training.tasks import (
    BATCH,
    COMMON,
    DATA,
    LR,
    STRATEGIES,
    TASKS,
    Task,
    config,
    data,
    fixed_archs,
    phase_key,
    spread_archs,
)
from ofa import Arch, Supernet
from ofa.core import distributed
from ofa.core.files import write_json
from ofa.core.tensors import write_tensors
from ofa.cost.counted import macs_m
from ofa.data.loaders import Batches, eval_batches, train_batches
from ofa.evaluate.calibrate import calibrate
from ofa.evaluate.metrics import evaluate
from ofa.train.config import TrainConfig
from ofa.train.losses import label_loss
from ofa.train.schedule import Schedule
from ofa.train.trainer import train

COST_STEPS, COST_ROUNDS = 10, 3


def main(job: Path, result: Path) -> None:
    torch.set_num_threads(1)  # two trainings at once keep two cores busier than one on both
    settings = json.loads(job.read_text())
    kind, task = settings.pop("kind"), TASKS[settings.pop("task")]
    kinds: dict[str, Callable[..., Any]] = {"costs": costs, "supernet": supernet, "alone": alone}
    with distributed.joined():
        found = kinds[kind](task, **settings)
        if distributed.rank() == 0:
            write_json(result, found)


def costs(task: Task) -> dict[str, float]:
    """Seconds of an epoch of every phase of every strategy, measured in interleaved rounds."""
    steps = len(data().train) // BATCH
    found: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder, "weights.safetensors")  # what a later phase starts from, and learns from
        made = Supernet(task.make())
        write_tensors(weights, made.network.state_dict(), {"family": made.family.name})
        for _ in range(COST_ROUNDS):
            for name, (parts, settings) in STRATEGIES.items():
                for i, (_, phase) in enumerate(parts):
                    tried = {"phases": [phase | {"epochs": 1}], "initial_weights": str(weights)}
                    seconds = _step_seconds(task, TrainConfig.model_validate(COMMON | settings | tried))
                    found.setdefault(phase_key(name, i), []).append(seconds * steps)
    return {key: float(np.median(seconds)) for key, seconds in found.items()}


def _step_seconds(task: Task, settings: TrainConfig) -> float:
    """The median over some steps of a real training, batches included."""
    times = []

    def note(done: int, *_: Any) -> None:
        times.append(time.perf_counter())
        if done > COST_STEPS:
            raise InterruptedError

    made = Supernet(task.make())
    with tempfile.TemporaryDirectory() as folder, suppress(InterruptedError):
        train(
            made,
            data(),
            settings,
            folder=Path(folder),
            augment=DATA.augment,
            on_progress=note,
            macs_m=macs_m(made.family),
        )
    return float(np.median(np.diff(times)))


def supernet(
    task: Task, strategy: str, seed: int, epochs: list[int], settings: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Trains a supernet and tests its subnets."""
    made = Supernet(task.make(), seed=seed)
    begin = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        options = config(strategy, epochs, settings)
        train(made, data(), options, folder=Path(folder), augment=DATA.augment, seed=seed, macs_m=macs_m(made.family))
    trained = time.perf_counter() - begin
    archs = [*spread_archs(made.family, task.alone), *fixed_archs(made.family)] if distributed.rank() == 0 else []
    accuracies = [_test(made.extract(arch), arch) for arch in archs]
    spread, fixed = accuracies[: task.alone], accuracies[task.alone :]
    return {"spread": spread, "fixed": fixed, "seconds": trained, "epochs": epochs}


def alone(task: Task, arch: dict[str, Any], seed: int, epochs: int, lr: float = LR["full"]) -> dict[str, Any]:
    """Trains one static network by a plain loop with the settings of the supernet's trainings, and tests it."""
    made, images = task.make(), data()
    checked = made.space.arch(arch)
    settings = TrainConfig.model_validate(COMMON | {"phases": [{"strategy": "full", "epochs": epochs}], "lr": lr})
    torch.manual_seed(seed)
    network = made.build(checked).to(memory_format=torch.channels_last).train()
    optimizer = create_optimizer_v2(
        network, settings.optimizer, lr=lr, weight_decay=settings.weight_decay, momentum=settings.momentum
    )
    per_epoch = len(images.train) // BATCH
    schedule, loss = Schedule(optimizer, settings, per_epoch), label_loss(settings.label_smoothing)
    ema = ModelEmaV3(network, COMMON["ema_decay"], use_warmup=True)
    begin, step = time.perf_counter(), 0
    pixels = int(checked["resolution"])
    for epoch in range(epochs):
        batches = train_batches(
            images, DATA.augment, resolution=lambda _: pixels, batch_size=BATCH, seed=seed, epoch=epoch
        )
        for batch, labels in batches:
            schedule.set(step)
            optimizer.zero_grad()
            loss(network(batch.contiguous(memory_format=torch.channels_last)), labels).backward()  # type: ignore[no-untyped-call]  # torch's is not typed
            optimizer.step()
            ema.update(network, step=step)
            step += 1
    seconds = time.perf_counter() - begin
    return {"accuracy": _test(ema.module, checked), "seconds": seconds}


def _test(network: nn.Module, arch: Arch) -> dict[str, float]:
    """Validation and test accuracy in percent, with BatchNorm statistics of training images."""
    resolution = int(arch["resolution"])
    network = network.to(memory_format=torch.channels_last)
    calibrate(network, _batches("train", resolution))
    return {split: evaluate(network, _batches(split, resolution)).top1_percent for split in ("validation", "test")}


@cache
def _batches(split: str, resolution: int) -> Batches:
    return eval_batches(data(), getattr(data(), split), resolution, limit=2000 if split == "train" else None)


if __name__ == "__main__":
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="grad and param do not obey the gradient layout contract")
        main(Path(sys.argv[1]), Path(sys.argv[2]))
