"""Measure what weight sharing costs: `python -m benchmarks.speed [FAMILY ...]` writes docs/results/speed.md."""

import sys
import time
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.page import median_range, table, write_page
from ofa import Arch, Family, LatencyTable, Supernet, create_family, list_families
from ofa.cost.block_table import distinct_blocks
from ofa.devices.device import Timing
from ofa.predict import create as create_predictor

MIN_ARCHS, MAX_ARCHS, SECONDS, PAIRS = 3, 50, 40, 3
INTRODUCTION = f"""
# Speed of weight sharing

Weight sharing costs next to nothing: a training step of a subnet takes as long, within a few percent, as the same step
of the same network extracted.

Made by `make bench`.

- *Step*: zeroing the gradients, forward, backward and SGD, channels last. The ratio is the median over {PAIRS}
  interleaved pairs for each of {MIN_ARCHS} to {MAX_ARCHS} random archs (as many as fit into {SECONDS} s); then the
  median over these archs, with the 10th and 90th percentiles.
- *Subnet*: one call of `supernet.subnet(arch)` whose modules are cached.
- *10,000 archs*: sampling them, looking up their latency in a table and predicting their accuracy.
"""
HEADER = "family | batch | archs | step, subnet / static | subnet, ms | 10,000 archs, s"


def main(names: list[str]) -> None:
    torch.manual_seed(0)
    rows = []
    for name in names:
        rows.append(measured_row(create_family(name)))
        print(rows[-1], flush=True)
    write_page("speed", INTRODUCTION, table(HEADER, rows))


def batch_size(family: Family) -> int:
    return 64 if max(family.resolutions) <= 64 else 16


def measured_row(family: Family) -> str:
    supernet = Supernet(family).to(memory_format=torch.channels_last)
    rng, batch = np.random.default_rng(0), batch_size(family)
    archs = [family.space.decode(row) for row in family.space.sample(MAX_ARCHS, rng)]
    ratios: list[float] = []
    start = time.perf_counter()
    for arch in archs:
        if len(ratios) < MIN_ARCHS or time.perf_counter() - start < SECONDS:
            ratios.append(step_ratio(supernet, arch, batch))
    return (
        f"`{family.name}` | {batch} | {len(ratios)} | {median_range(ratios, '.3f')} | {subnet_ms(supernet, archs):.2f} "
        f"| {cost_seconds(family, rng):.2f}"
    )


def step_ratio(supernet: Supernet, arch: Arch, batch: int) -> float:
    """Return the time of a subnet's training step divided by that of the same static network."""
    static = supernet.extract(arch).to(memory_format=torch.channels_last)
    images = torch.randn(batch, *supernet.family.input_shape(arch)).contiguous(memory_format=torch.channels_last)
    labels = torch.randint(0, 10, (batch,))
    shared_sgd, static_sgd = (torch.optim.SGD(owner.parameters(), 1e-3, momentum=0.9) for owner in (supernet, static))
    ratios = []
    for _ in range(PAIRS + 1):
        shared_seconds = step_seconds(supernet.subnet(arch), shared_sgd, images=images, labels=labels)
        ratios.append(shared_seconds / step_seconds(static, static_sgd, images=images, labels=labels))
    return float(np.median(ratios[1:]))  # the first pair warms up


def step_seconds(network: nn.Module, optimizer: torch.optim.Optimizer, *, images: Tensor, labels: Tensor) -> float:
    start = time.perf_counter()
    optimizer.zero_grad(set_to_none=False)
    functional.cross_entropy(network(images), labels).backward()  # type: ignore[no-untyped-call]  # torch's is not typed
    optimizer.step()
    return time.perf_counter() - start


def subnet_ms(supernet: Supernet, archs: list[Arch]) -> float:
    """Return the median milliseconds of `supernet.subnet(arch)` when every arch was assembled once before."""
    times = []
    for arch in archs * 2:
        start = time.perf_counter()
        supernet.subnet(arch)
        times.append(time.perf_counter() - start)
    return 1e3 * float(np.median(times[len(archs) :]))


def cost_seconds(family: Family, rng: np.random.Generator, n: int = 10_000) -> float:
    """Return the seconds to sample `n` archs, look up their latency (synthetic) and predict their accuracy."""
    space, timing, overhead = family.space, Timing(0.1, 0.01, 1), Timing(0.01, 0.0, 1)
    networks = {space.decode(row): timing for row in space.sample(80, rng)}
    rows = {(repr(block), size): timing for block, size in distinct_blocks(family)}
    timings: dict[str, Any] = {"overhead": overhead, "rows": rows, "networks": networks, "checks": networks}
    latency_table = LatencyTable(measured=family, family=family, device={}, date="", **timings)
    training_rows = space.sample(300, rng)
    predictor = create_predictor("mlp", space).fit(training_rows, rng.normal(70, 3, 300))
    latency_table(training_rows)  # warms up
    start = time.perf_counter()
    sampled = space.sample(n, rng)
    latency_table(sampled)
    predictor(sampled)
    return time.perf_counter() - start


if __name__ == "__main__":
    main(sys.argv[1:] or list_families())
