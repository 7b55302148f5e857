"""ONNX against PyTorch: `python -m benchmarks.parity [FAMILY ...]` writes docs/results/parity.md.

Each supernet is trained for some steps first, as untrained networks give logits near zero.
"""

import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.page import table, write_page
from export.formats.onnx import Parity, export_onnx
from ofa import Supernet, create_family, list_families
from ofa.data.config import DataConfig
from ofa.data.dataset import Data
from ofa.data.load import load_data
from ofa.data.loaders import eval_batches
from ofa.evaluate.calibrate import calibrate

N_ARCHS, STEPS, BATCH = 20, 40, 16
MAX_RESOLUTION = 160
"""Larger resolutions of a family are left out: the whole test split is run on every arch."""


HEADER = "family | pixels | archs | largest difference of a logit | median over archs | largest logit | same top-1"


def main(names: list[str]) -> None:
    data = load_data(DataConfig(name="digits"))
    rows = []
    for name in names:
        rows.append(measured_row(name, data))
        print(rows[-1], flush=True)
    introduction = f"""
# ONNX against PyTorch

Made by `python -m benchmarks.parity`: {N_ARCHS} random archs of each family, trained for {STEPS} steps, on the whole
digits test split ({len(data.test)} images). A file whose logits differ by more than 1e-4, or whose top-1 class differs
for any image, is not written.
"""
    write_page("parity", introduction, table(HEADER, rows))


def measured_row(name: str, data: Data) -> str:
    parities: list[Parity] = []
    with tempfile.TemporaryDirectory() as folder:
        for network, shape, images in networks(name, data):
            parity = export_onnx(network, shape, Path(folder, "model.onnx"), images=images)
            assert parity is not None  # as images are given
            parities.append(parity)
    resolutions = _resolutions(name)
    diffs = [parity.max_abs_diff for parity in parities]
    largest, same = max(parity.max_abs_logit for parity in parities), min(parity.same_top1 for parity in parities)
    return (
        f"`{name}` | {', '.join(map(str, resolutions))} | {len(diffs)} | {max(diffs):.1e} | {np.median(diffs):.1e} "
        f"| {largest:.1f} | {100 * same:.0f}%"
    )


def networks(name: str, data: Data) -> Iterator[tuple[nn.Module, tuple[int, ...], list[Tensor]]]:
    """Yield random networks of a family that was trained a little, their input shapes, and the test images for them."""
    resolutions = _resolutions(name)
    family = create_family(name, num_classes=len(data.labels), in_channels=data.in_channels, resolutions=resolutions)
    supernet = train(Supernet(family), data)
    archs = [family.space.decode(arch) for arch in family.space.sample(N_ARCHS, np.random.default_rng(0))]
    for resolution in family.resolutions:
        training = eval_batches(data, data.train, resolution, limit=128, batch_size=32)
        images = [images for images, _ in eval_batches(data, data.test, resolution, batch_size=60)]
        for arch in archs:
            if arch["resolution"] == resolution:
                network = supernet.extract(arch)
                calibrate(network, training)
                yield network, family.input_shape(arch), images


def _resolutions(name: str) -> tuple[int, ...]:
    return tuple(r for r in create_family(name).resolutions if r <= MAX_RESOLUTION) or (96, 128)


def train(supernet: Supernet, data: Data) -> Supernet:
    """Return the supernet after some sandwich steps."""
    rng = np.random.default_rng(0)
    optimizer = torch.optim.SGD(supernet.parameters(), 0.01, momentum=0.9)
    space = supernet.family.space
    limits = {"batch_size": BATCH, "limit": BATCH * STEPS}
    batches = {r: eval_batches(data, data.train, r, **limits) for r in supernet.family.resolutions}
    for step in range(STEPS):
        supernet.zero_grad()
        for arch in (space.largest, space.smallest, space.decode(space.sample(1, rng)[0])):
            images, labels = batches[int(arch["resolution"])][step]
            functional.cross_entropy(supernet.subnet(arch)(images), labels).backward()  # type: ignore[no-untyped-call]  # torch's is not typed
        optimizer.step()
    return supernet


if __name__ == "__main__":
    main(sys.argv[1:] or list_families())
