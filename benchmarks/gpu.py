"""Train on a GPU: `python -m benchmarks.gpu` runs the tests that need one, then writes docs/results/gpu.md.

It takes about five minutes. Without a GPU it says so and ends.
"""

import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset, Subset

import ofa
from benchmarks.page import median_range, table, write_page
from ofa.train import trainer

TESTS = ["tests/ofa/train/test_cuda.py", "tests/export/devices/test_cuda.py"]
FAMILY, PIXELS, CLASSES, BATCH_SIZE = "ofa_mobilenet_v3", 224, 1000, 128
STEPS, WARM_UP, ROUNDS, WORKERS = 60, 20, 3, 8
VARIANTS: dict[str, tuple[dict[str, Any], int]] = {
    "float32": ({}, 10),
    "float32, contiguous": ({"channels_last": False}, 10),
    "bfloat16": ({"precision": "bfloat16"}, 10),
    "bfloat16, losses read every step": ({"precision": "bfloat16"}, 1),
    "bfloat16, ends compiled": ({"precision": "bfloat16", "compile": True}, 10),
}
"""Settings of trainings, and steps after which losses are read."""
INTRODUCTION = f"""
# Training on a GPU

Steps of the sandwich rule (the largest subnet, the smallest, two random ones) of `{FAMILY}` at {PIXELS} pixels,
{BATCH_SIZE} images of noise, augmented by {WORKERS} processes. Median of {ROUNDS} rounds that alternate (10th to 90th
percentile). Made by `python -m benchmarks.gpu`.
"""


def main() -> None:
    if not torch.cuda.is_available():
        sys.exit("no NVIDIA GPU that PyTorch can use; run this where `nvidia-smi` shows one")
    subprocess.run([sys.executable, "-m", "pytest", *TESTS, "-m", ""], check=True)
    family = ofa.create_family(FAMILY, num_classes=CLASSES, resolutions=[PIXELS])
    noise = Noise(STEPS * BATCH_SIZE, PIXELS, CLASSES)
    seconds: dict[str, list[float]] = {name: [] for name in VARIANTS}
    for _ in range(ROUNDS):
        for name, (settings, read_every) in VARIANTS.items():
            settings = settings | {"batch_size": BATCH_SIZE}
            seconds[name].append(step_seconds(family, noise, settings, read_every, WARM_UP, workers=WORKERS))
    write_page("gpu", INTRODUCTION, f"GPU: {torch.cuda.get_device_name()}.", speed_table(seconds))


class Noise(Dataset[tuple[NDArray[np.uint8], int]]):
    """Images of noise, few of which are different."""

    def __init__(self, n: int, pixels: int, classes: int) -> None:
        self.n, self.classes = n, classes
        self.images = np.random.default_rng(0).integers(0, 256, (16, pixels, pixels, 3), dtype=np.uint8)

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, i: int) -> tuple[NDArray[np.uint8], int]:
        return self.images[i % len(self.images)], i % self.classes


def step_seconds(
    family: ofa.Family, noise: Noise, settings: dict[str, Any], read_every: int, warm_up: int, workers: int = 0
) -> float:
    """Return the mean time in seconds of the training steps of one epoch after the first ones."""
    phases = [{"strategy": "sandwich", "epochs": 1, "random": 2}]
    config = ofa.TrainConfig.model_validate({"phases": phases, "checkpoint_seconds": 1e9} | settings)
    few = Subset(noise, range(noise.classes))
    normalization = {"mean": (0.5,) * 3, "std": (0.29,) * 3}
    names = tuple(map(str, range(noise.classes)))
    data = ofa.Data("noise", names, **normalization, train=noise, validation=few, test=few)  # type: ignore[arg-type]  # become images
    times: dict[int, float] = {}

    def keep_time(done: int, total: int, _: str) -> None:
        times[done] = time.perf_counter()
        if done == total:
            raise InterruptedError  # before the validation

    with (
        suppress(InterruptedError),
        tempfile.TemporaryDirectory() as folder,
        patch.dict(trainer._READ_EVERY, dict.fromkeys(("cpu", "cuda"), read_every)),
    ):
        ofa.train(ofa.Supernet(family), data, config, folder=Path(folder), workers=workers, on_progress=keep_time)
    first, last = min(step for step in times if step >= warm_up), max(times)
    return (times[last] - times[first]) / (last - first)


def speed_table(seconds: dict[str, list[float]]) -> str:
    """Return a table of trainings by name, the first of which is the reference; `seconds` has a value per round."""
    reference = np.array(next(iter(seconds.values())))
    rows = [
        f"{name} | {median_range([1000 * one for one in own], '.1f')} | {BATCH_SIZE / np.median(own):.0f} "
        f"| {median_range(np.array(own) / reference, '.2f')}"
        for name, own in seconds.items()
    ]
    return table("training | step ms | images/s | time relative to the first", rows)


if __name__ == "__main__":
    main()
