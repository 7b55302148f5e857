"""Measure the memory of a training step: `python -m benchmarks.memory [FAMILY ...]` writes docs/results/memory.md.

Each measurement is the peak of a process of its own, which runs this module with `--worker FAMILY MODE`.
"""

import os
import resource
import subprocess
import sys

import numpy as np
import torch
from torch.nn import functional

from benchmarks.page import table, write_page
from benchmarks.speed import batch_size
from ofa import Supernet, create_family

FAMILIES = ("small_mobilenet_v3", "hybrid_small", "autoformer_tiny", "ofa_mobilenet_v3", "hybrid")
STEPS, PROCESSES, RANDOM = 4, 3, 2
MALLOC = {"in use": {"MALLOC_MMAP_THRESHOLD_": "65536"}, "resident": {}}
"""Settings of glibc's malloc, which by default keeps freed blocks for later ones that fit into them."""
INTRODUCTION = f"""
# Memory of a training step

A sandwich step takes little more memory than a step of the largest network alone: its networks share their weights and
run one after the other.

Made by `python -m benchmarks.memory`: peak memory of a process that trains {STEPS} steps (SGD with momentum), minus
that of a process that trains none; median of {PROCESSES} processes. A sandwich is the largest, the smallest and
{RANDOM} random networks. *In use*: glibc returns blocks to the system as soon as they are freed. *Resident*: it keeps
some of them, its default, and networks of other sizes fit into those less well.
"""


def main(names: list[str]) -> None:
    rows = []
    for name in names:
        for memory, malloc in MALLOC.items():
            peaks_mib = [median_peak_mib(name, mode, malloc) for mode in ("sandwich", "static", "none")]
            sandwich, static = (peak - peaks_mib[2] for peak in peaks_mib[:2])
            batch = batch_size(create_family(name))
            rows.append(f"`{name}` | {batch} | {memory} | {sandwich:.0f} | {static:.0f} | {sandwich / static:.3f}")
            print(rows[-1], flush=True)
    header = "family | batch | memory | sandwich, MiB | largest static network, MiB | ratio"
    write_page("memory", INTRODUCTION, table(header, rows))


def median_peak_mib(name: str, mode: str, malloc: dict[str, str]) -> float:
    """Return the median peak memory in MiB of processes that run `peak_mib`."""
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.memory", "--worker", name, mode]
    outputs = [subprocess.check_output(command, text=True, env=os.environ | malloc) for _ in range(PROCESSES)]
    return float(np.median([float(output) for output in outputs]))


def peak_mib(name: str, mode: str) -> float:
    """Return this process's peak memory in MiB after training a supernet (`sandwich`), a `static` network or `none`."""
    torch.manual_seed(0)
    family, rng = create_family(name), np.random.default_rng(0)
    space, batch = family.space, batch_size(family)
    images, labels = torch.randn(batch, *family.input_shape(space.largest)), torch.randint(0, 10, (batch,))
    images = images.contiguous(memory_format=torch.channels_last)
    if mode != "none":
        supernet = Supernet(family) if mode == "sandwich" else None
        owner = supernet or family.build(space.largest)
        owner.to(memory_format=torch.channels_last).train()
        optimizer = torch.optim.SGD(owner.parameters(), 1e-3, momentum=0.9)
        for _ in range(STEPS):
            optimizer.zero_grad(set_to_none=False)
            random = [space.decode(row) for row in space.sample(RANDOM, rng)]
            for arch in [space.largest, space.smallest, *random] if supernet else [space.largest]:
                network = supernet.subnet(arch) if supernet else owner
                resized = functional.interpolate(images, int(arch["resolution"]))
                functional.cross_entropy(network(resized), labels).backward()  # type: ignore[no-untyped-call]  # torch's is not typed
            optimizer.step()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    if sys.argv[1:2] == ["--worker"]:
        print(peak_mib(sys.argv[2], sys.argv[3]))
    else:
        main(sys.argv[1:] or list(FAMILIES))
