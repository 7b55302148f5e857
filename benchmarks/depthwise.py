"""What `train.depthwise_strips` saves: `python -m benchmarks.depthwise` writes docs/results/depthwise.md."""

import time

import numpy as np
import torch

from benchmarks.page import median_range, table, write_page
from ofa import Arch, Supernet, create_family
from ofa.train.config import TrainConfig
from ofa.train.step import TrainingStep

FAMILIES = {"small_mobilenet_v3": 64, "hybrid_small": 64, "ofa_mobilenet_v3": 16, "hybrid": 16}
"""Families with depthwise kernels wider than 3, and images in a step."""
N_ARCHS, PAIRS = 12, 3
CONFIG = TrainConfig.model_validate({"phases": [{"strategy": "uniform", "epochs": 1}], "teacher": "none"})
INTRODUCTION = f"""
# Depthwise gradients in strips

The time of a training step with `train.depthwise_strips` divided by the time without: zeroing the gradients, forward
and backward, channels last. Median over {PAIRS} interleaved pairs for each of {N_ARCHS} random archs; then the median
over these archs, with the 10th and 90th percentiles.

Made by `python -m benchmarks.depthwise`.
"""


def main() -> None:
    rows = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        for name, batch in FAMILIES.items():
            rows.append(f"`{name}` | {batch} | {threads} | {median_range(ratios(name, batch), '.2f')}")
            print(rows[-1], flush=True)
    write_page("depthwise", INTRODUCTION, table("family | batch | threads | strips / without", rows))


def ratios(name: str, batch: int) -> list[float]:
    family = create_family(name)
    supernet = Supernet(family).to(memory_format=torch.channels_last)
    configs = (CONFIG.model_copy(update={"depthwise_strips": strips}) for strips in (True, False))
    steps = [TrainingStep(supernet, config, num_classes=10) for config in configs]
    found = []
    for row in family.space.sample(N_ARCHS, np.random.default_rng(0)):
        arch = family.space.decode(row)
        images = torch.randn(batch, *family.input_shape(arch))
        pairs = [[seconds(step, arch, images) for step in steps] for _ in range(PAIRS + 1)]
        found.append(float(np.median([strips / without for strips, without in pairs[1:]])))  # the first pair warms up
    return found


def seconds(step: TrainingStep, arch: Arch, images: torch.Tensor) -> float:
    """Return the time of a training step."""
    labels = torch.zeros(len(images), dtype=torch.int64)
    start = time.perf_counter()
    step.supernet.zero_grad()
    step.accumulate_gradients([arch], images, labels)
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
