"""Compare shared weights with one file per level: `python -m benchmarks.bundle` writes docs/results/bundle.md."""

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.page import table, write_page
from export.bundle import BundledLevel, load_bundle
from export.bundle_writer import write_bundle
from export.formats.onnx import export_onnx
from export.preprocess import Preprocess
from export.session import run, session
from ofa import Arch, Family, Supernet, calibrate, create_family, macs_m
from ofa.pipeline.levels import Level

CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "digits": ("small_mobilenet_v3", {"num_classes": 10, "in_channels": 1, "resolutions": [8, 12, 16, 24]}),
    "fashion_mnist": ("small_mobilenet_v3", {"num_classes": 10, "in_channels": 1, "resolutions": [20, 24, 28]}),
    "hybrid_fashion_mnist": ("hybrid_small", {"num_classes": 10, "in_channels": 1, "resolutions": [20, 24, 28]}),
    "autoformer_tiny": ("autoformer_tiny", {}),
}
"""Families of the shipped recipes with their options, and a vision transformer."""
PROCESSES, IMAGES = 5, 4
MODES = {"files": ("files", "one"), "shared": ("shared", "one"), "shared, neighbors ready": ("shared", "ready")}
INTRODUCTION = """
# Bundles that cost one network

A bundle of five levels takes about as much room as its largest level, and each model is put together to the last byte.

Made by `python -m benchmarks.bundle`: float32 levels of supernets with random weights, which have the sizes of trained
ones. *Spread*: the largest subnet, three between, the smallest. *Random*: five random subnets, none of which holds the
others; of each tensor, the largest slices are stored.
"""
SIZES = """
## Size

The whole folder, graphs and manifest included, over the largest level's ONNX file.
"""
TIMES = f"""
## Time and memory

Bundles of spread levels in fresh processes without torch, one thread, median of {PROCESSES}. *Load*: processor time
until the middle level is ready to serve, all checksums verified. *Memory*: share of pages (PSS) that this adds while
the level serves; *peak*: resident memory at its highest. *Switch*: an update that moves to a neighboring level.
"""


def main() -> None:
    sizes, times = [], []
    with tempfile.TemporaryDirectory() as temporary:
        for name, (family_name, options) in CASES.items():
            family = create_family(family_name, **options)
            for kind, archs in {"spread": spread(family), "random": random_archs(family)}.items():
                folder = Path(temporary) / name / kind
                make_bundles(family, archs, folder)
                check_equal(folder)
                largest, files, shared = (size_mib(folder / part) for part in ("onnx", "files", "shared"))
                sizes.append(
                    f"`{name}` | {kind} | {largest:.3f} | {files:.3f} | {shared:.3f} | {files / largest:.2f} | "
                    f"{shared / largest:.3f}"
                )
                print(sizes[-1], flush=True)
            times += time_rows(name, Path(temporary) / name / "spread")
    size_header = "levels | subnets | largest level, MiB | file per level, MiB | shared, MiB | file per level | shared"
    time_header = "levels | bundle | load, ms | memory, MiB | peak, MiB | switch, ms"
    write_page(
        "bundle", INTRODUCTION, SIZES + "\n" + table(size_header, sizes), TIMES + "\n" + table(time_header, times)
    )


def spread(family: Family) -> list[Arch]:
    """Return the largest subnet, three at quantiles of the multiply-accumulates of random ones, and the smallest."""
    space = family.space
    rows = space.sample(400, np.random.default_rng(0))
    order = np.argsort(-macs_m(family)(rows))
    return [space.largest, *(space.decode(rows[order[rank]]) for rank in (40, 200, 360)), space.smallest]


def random_archs(family: Family) -> list[Arch]:
    """Return five random subnets, the one with the most multiply-accumulates first."""
    rows = family.space.sample(5, np.random.default_rng(0))
    return [family.space.decode(row) for row in rows[np.argsort(-macs_m(family)(rows))]]


def make_bundles(family: Family, archs: Sequence[Arch], folder: Path) -> None:
    """Write the archs' ONNX files and two bundles of them into `onnx`, `files` and `shared`."""
    torch.manual_seed(0)
    supernet = Supernet(family)
    with torch.no_grad():
        for parameter in supernet.parameters():
            parameter.add_(0.01 * torch.randn_like(parameter))  # so that ones and zeros do not agree by chance
    (folder / "onnx").mkdir(parents=True)
    levels = []
    for i, arch in enumerate(archs):
        shape, path = family.input_shape(arch), folder / "onnx" / f"{i}.onnx"
        network = supernet.extract(arch)
        calibrate(network, [(torch.randn(16, *shape), torch.zeros(16))])
        export_onnx(network, shape, path)
        levels.append(bundled_level(arch, shape, path, latency_ms=float(len(archs) - i)))
    n_classes = run(session(path), np.zeros((1, *shape), np.float32)).shape[1]
    for part in ("files", "shared"):
        write_bundle(
            folder / part,
            levels,
            source=folder / "onnx",
            name=part,
            labels=[str(i) for i in range(n_classes)],
            targets={"made_up": {}},
            shared=part == "shared",
        )


def bundled_level(arch: Arch, shape: tuple[int, ...], path: Path, latency_ms: float) -> BundledLevel:
    """Return a level whose figures other than the size are made up."""
    zeros = {name: 0.0 for name, field in Level.__dataclass_fields__.items() if field.type is float}
    size = path.stat().st_size
    values = zeros | {"latency_ms": latency_ms, "size_mib": size / 2**20}
    level = Level(
        target="made_up",
        arch=arch,
        file=path.name,
        format="onnx",
        precision="float32",
        bytes=size,
        measured=False,
        batch=1,
        energy_mj=None,
        **values,
    )
    channels, side = shape[0], shape[-1]
    return BundledLevel(**vars(level), preprocess=Preprocess(side, channels, (0.5,) * channels, (0.5,) * channels))


def check_equal(folder: Path) -> None:
    """Check that each level of the shared bundle computes, bit by bit, what its ONNX file computes."""
    bundle = load_bundle(folder / "shared")
    for i, level in enumerate(bundle.levels):
        preprocess = level.preprocess
        shape = (IMAGES, preprocess.in_channels, preprocess.resolution, preprocess.resolution)
        images = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
        expected = run(session(folder / "onnx" / f"{i}.onnx"), images)
        assert np.array_equal(run(session(bundle.read_model(level)), images), expected)


def size_mib(folder: Path) -> float:
    """Return the size of a bundle, or of the largest of some ONNX files."""
    combine: Callable[[list[int]], int] = max if folder.name == "onnx" else sum
    return combine([path.stat().st_size for path in folder.iterdir()]) / 2**20


def time_rows(name: str, folder: Path) -> list[str]:
    """Measure the bundles in `folder` in turns, and return a row for each mode."""
    measured: dict[str, list[dict[str, float]]] = {mode: [] for mode in MODES}
    for _ in range(PROCESSES):
        for mode, (part, ready) in MODES.items():
            command = [sys.executable, "-m", "benchmarks.bundle_worker", str(folder / part), ready]
            measured[mode].append(json.loads(subprocess.check_output(command, text=True)))
    rows = []
    for mode, results in measured.items():
        load_ms, memory, peak, switch_ms = (
            float(np.median([result[key] for result in results]))
            for key in ("load_ms", "memory_mib", "peak_mib", "switch_ms")
        )
        rows.append(f"`{name}` | {mode} | {load_ms:.0f} | {memory:.1f} | {peak:.1f} | {switch_ms:.3g}")
        print(rows[-1], flush=True)
    return rows


if __name__ == "__main__":
    main()
