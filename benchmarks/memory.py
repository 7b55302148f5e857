"""Memory of a training step: `python -m benchmarks.memory [FAMILY ...]` writes docs/results/memory.md.

Each process runs some steps, at the batches of `benchmarks.speed`, and says its peak: with a sandwich of a supernet,
with the largest static network, and with nothing but the libraries and the batch, which is taken off. Once with
every large block given back as soon as it is freed, so that the peak is of what is in use, and once as it is.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

from benchmarks.machine import machine
from benchmarks.speed import SMALL_IMAGES
from ofa import Supernet, create_family

RESULT = Path("docs/results/memory.md")
FAMILIES = ("small_mobilenet_v3", "hybrid_small", "autoformer_tiny", "ofa_mobilenet_v3", "hybrid")
STEPS, REPEATS = 4, 3
MALLOC = {"in use": {"MALLOC_MMAP_THRESHOLD_": "65536"}, "of the process": {}}
"""Settings of glibc's malloc, whose default keeps freed blocks for later ones that fit into them."""


def main(names: list[str]) -> None:
    lines = [
        "# Memory of a training step",
        "",
        f"Made by `python -m benchmarks.memory`: peak memory of a process that trains {STEPS} steps (SGD with",
        f"momentum), less that of one that only loads the libraries; median of {REPEATS} processes. A sandwich: the",
        "largest, the smallest, 2 random networks. *In use*: glibc gives blocks back as soon as they are freed;",
        "*of the process*: by its default it keeps some, which networks of other sizes fit into less well.",
        "",
        f"Machine: {machine()}.",
        "",
        "| family | batch | memory | sandwich, MiB | largest static network, MiB | ratio |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for name in names:
        batch = 64 if max(create_family(name).resolutions) <= SMALL_IMAGES else 16
        for said, malloc in MALLOC.items():
            peaks = [_peak_mib(name, batch, what, malloc) for what in ("sandwich", "static", "nothing")]
            sandwich, static = peaks[0] - peaks[2], peaks[1] - peaks[2]
            lines.append(f"| `{name}` | {batch} | {said} | {sandwich:.0f} | {static:.0f} | {sandwich / static:.3f} |")
            print(lines[-1], flush=True)
        RESULT.write_text("\n".join(lines) + "\n")


def _peak_mib(name: str, batch: int, what: str, malloc: dict[str, str]) -> float:
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.memory", "--worker", name, str(batch), what]
    settings = os.environ | malloc
    return float(np.median([float(subprocess.check_output(command, text=True, env=settings)) for _ in range(REPEATS)]))


def work(name: str, batch: int, what: str) -> float:
    """Trains some steps; the peak of this process in MiB."""
    torch.manual_seed(0)
    made = create_family(name)
    space, rng = made.space, np.random.default_rng(0)
    images, labels = torch.randn(batch, *made.input_shape(space.largest)), torch.randint(0, 10, (batch,))
    images = images.contiguous(memory_format=torch.channels_last)
    if what != "nothing":
        supernet = Supernet(made) if what == "sandwich" else None
        network = supernet or made.build(space.largest)
        network.to(memory_format=torch.channels_last).train()
        optimizer = torch.optim.SGD(network.parameters(), 1e-3, momentum=0.9)
        for _ in range(STEPS):
            optimizer.zero_grad(set_to_none=False)
            drawn = [space.decode(row) for row in space.sample(2, rng)]
            archs = [space.largest, space.smallest, *drawn] if supernet is not None else [space.largest]
            for arch in archs:
                subnet = supernet.subnet(arch) if supernet is not None else network
                small = functional.interpolate(images, int(arch["resolution"]))
                functional.cross_entropy(subnet(small), labels).backward()  # type: ignore[no-untyped-call]  # torch's is not typed
            optimizer.step()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    if sys.argv[1:2] == ["--worker"]:
        print(work(sys.argv[2], int(sys.argv[3]), sys.argv[4]))
    else:
        main(sys.argv[1:] or list(FAMILIES))
