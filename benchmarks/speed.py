"""What weight sharing costs: `python -m benchmarks.speed [FAMILY ...]` writes docs/results/speed.md.

- A training step (zero the gradients, forward, backward, SGD) of a random subnet against the same step of the same
  network extracted, in interleaved pairs.
- Putting a subnet together, once its blocks are kept.
- Sampling archs, costing them by a latency table and predicting their accuracy.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.machine import machine
from ofa import AccuracyPredictor, Arch, Family, LatencyTable, Supernet, create_family, list_families
from ofa.cost.block_table import distinct_blocks
from ofa.devices.device import Timing
from ofa.predict.mlp import PredictorConfig

RESULT = Path("docs/results/speed.md")
SMALL_IMAGES = 64
"""Families for images up to so many pixels take batches of 64, others of 16."""
FEW, MANY, SECONDS, PAIRS = 3, 50, 40.0, 3


def main(names: list[str]) -> None:
    torch.manual_seed(0)
    lines = [
        "# Speed of weight sharing",
        "",
        "Made by `make bench`. A step is zeroing the gradients, forward, backward and SGD, channels last; the ratio is",
        f"the median over {PAIRS} interleaved pairs for each of {FEW} to {MANY} random archs (as many as fit into "
        f"{SECONDS:.0f} s), then over the archs (with the 10th and 90th percentile).",
        "Putting together: one `supernet.subnet(arch)` with its blocks kept. Cost and predict: 10,000 archs sampled, "
        "costed by a latency table and predicted.",
        "",
        f"Machine: {machine()}.",
        "",
        "| family | batch | archs | step, subnet / static | put together, ms | 10,000 archs, s |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for name in names:
        made = create_family(name)
        batch = 64 if max(made.resolutions) <= SMALL_IMAGES else 16
        supernet = Supernet(made).to(memory_format=torch.channels_last)
        rng = np.random.default_rng(0)
        archs = [made.space.decode(row) for row in made.space.sample(MANY, rng)]
        ratios: list[float] = []
        start = time.perf_counter()
        for arch in archs:
            if len(ratios) < FEW or time.perf_counter() - start < SECONDS:
                ratios.append(step_ratio(supernet, arch, batch))
        low, middle, high = np.percentile(ratios, (10, 50, 90))
        lines.append(
            f"| `{name}` | {batch} | {len(ratios)} | {middle:.3f} ({low:.3f} to {high:.3f}) "
            f"| {assembly_ms(supernet, archs):.2f} | {cost_seconds(made, rng):.2f} |"
        )
        print(lines[-1], flush=True)
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    RESULT.write_text("\n".join(lines) + "\n")


def step_ratio(supernet: Supernet, arch: Arch, batch: int) -> float:
    """Time of a subnet's training step over that of the same static network."""
    static = supernet.extract(arch).to(memory_format=torch.channels_last)
    shape = supernet.family.input_shape(arch)
    images = torch.randn(batch, *shape).contiguous(memory_format=torch.channels_last)
    labels = torch.randint(0, 10, (batch,))
    of_supernet, of_static = (torch.optim.SGD(n.parameters(), 1e-3, momentum=0.9) for n in (supernet, static))
    pairs = []
    for i in range(PAIRS + 1):
        shared = step_seconds(supernet.subnet(arch), of_supernet, images, labels)
        alone = step_seconds(static, of_static, images, labels)
        if i:  # the first pair warms up
            pairs.append(shared / alone)
    return float(np.median(pairs))


def step_seconds(network: nn.Module, optimizer: torch.optim.Optimizer, images: Tensor, labels: Tensor) -> float:
    start = time.perf_counter()
    optimizer.zero_grad(set_to_none=False)
    functional.cross_entropy(network(images), labels).backward()  # type: ignore[no-untyped-call]  # torch's is not typed
    optimizer.step()
    return time.perf_counter() - start


def assembly_ms(supernet: Supernet, archs: list[Arch]) -> float:
    """Milliseconds to put a subnet together once warm."""
    times = []
    for _ in range(2):
        for arch in archs:
            start = time.perf_counter()
            supernet.subnet(arch)
            times.append(time.perf_counter() - start)
    return 1e3 * float(np.median(times[len(archs) :]))


def cost_seconds(made: Family, rng: np.random.Generator, n: int = 10_000) -> float:
    """Seconds to sample archs, cost them by a table (made-up timings) and predict their accuracies."""
    timing = Timing(0.1, 0.01, 1)
    networks = {made.space.decode(row): timing for row in made.space.sample(80, rng)}
    rows = {(repr(block), size): timing for block, size in distinct_blocks(made)}
    overhead = Timing(0.01, 0.0, 1)
    table = LatencyTable(
        measured=made,
        family=made,
        device={},
        date="",
        overhead=overhead,
        rows=rows,
        networks=networks,
        checks=networks,
    )
    few = made.space.sample(300, rng)
    predictor = AccuracyPredictor.fit(made.space, few, rng.normal(70, 3, len(few)), config=PredictorConfig(), seed=0)
    table(few)
    start = time.perf_counter()
    sampled = made.space.sample(n, rng)
    table(sampled)
    predictor(sampled)
    return time.perf_counter() - start


if __name__ == "__main__":
    main(sys.argv[1:] or list_families())
