"""Peak memory of evaluating subnets on many large images.

Each measurement is the peak of a process of its own, which runs this module with `FOLDER MODE`.
"""

import json
import resource
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

import ofa
from benchmarks.data.pictures import jpeg_folder
from benchmarks.page import table
from ofa.data.config import DataConfig
from ofa.evaluate.subnets import evaluate_subnets, extract_calibrated

N_IMAGES, RESOLUTION, CALIBRATION_IMAGES = 50_000, 224, 1024
WIDTHS = tuple(range(8, 48, 2))
"""Channels of the subnets: of one convolution each, so that time and memory are those of the images."""


def measure(folder: Path) -> dict[str, Any]:
    """Measure networks alone, and the evaluation of networks on images."""
    images = jpeg_folder(folder, N_IMAGES)
    return {mode: _peak(images, mode) for mode in ("networks", "images")}


def section(runs: dict[str, Any]) -> list[str]:
    """Return the section of the page."""
    own, peak = (runs[mode]["peak_mib"] for mode in ("networks", "images"))
    row = (
        f"{N_IMAGES:,} | {len(WIDTHS)} | {own:.0f} | {peak:.0f} | {peak - own:.0f} "
        f"| {N_IMAGES * 3 * RESOLUTION**2 * 4 / 2**20:,.0f} | {runs['images']['minutes']:.0f}"
    )
    head = "images | subnets | networks alone MiB | evaluation MiB | more, MiB | all images MiB | minutes"
    return [
        "## Memory of evaluation",
        f"JPEG files of {RESOLUTION} to 500 pixels, evaluated at {RESOLUTION} pixels by subnets of "
        "one convolution, BatchNorm re-estimated for each; peak resident memory of the process. *Networks alone* "
        "is that of a process that extracts the same subnets and runs each on one batch; *all images* is what they "
        "take as floats, all of which was held before.",
        table(head, [row]),
    ]


def _peak(folder: Path, mode: str) -> dict[str, Any]:
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.data.memory", str(folder), mode]
    result: dict[str, Any] = json.loads(subprocess.check_output(command, text=True))
    return result


def build(arch: Mapping[str, Any]) -> nn.Module:
    """Return a network of one convolution."""
    width = arch["width"]
    convolution = nn.Conv2d(3, width, 8, stride=8, bias=False)
    return nn.Sequential(
        convolution, nn.BatchNorm2d(width), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 10)
    )


def main(folder: Path, mode: str) -> None:
    """Evaluate the subnets on all test images, or run them on one batch; print the peak memory."""
    start = time.monotonic()
    family = ofa.Family.from_builder(ofa.SearchSpace([ofa.Choice("width", WIDTHS)]), build, resolution=RESOLUTION)
    supernet, archs = ofa.Supernet(family), [family.space.arch({"width": width}) for width in WIDTHS]
    data = ofa.load_data(DataConfig(name="image_folder", folder=folder))
    if mode == "images":
        limits = {"calibration_images": CALIBRATION_IMAGES}
        n_evaluated = sum(1 for _ in evaluate_subnets(supernet, archs, data, data.test, **limits))
        assert n_evaluated == len(archs)
    else:
        size = len(ofa.eval_batches(data, data.test, RESOLUTION)[0][1])
        batch = [(torch.randn(size, 3, RESOLUTION, RESOLUTION), torch.zeros(size, dtype=torch.int64))]
        for arch in archs:
            ofa.evaluate(extract_calibrated(supernet, arch, batch), batch)
    peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"peak_mib": peak_mib, "minutes": (time.monotonic() - start) / 60}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
