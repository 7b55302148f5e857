"""Evaluation of subnets, each with BatchNorm statistics of its own."""

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import nn

from ofa.core import distributed
from ofa.data.dataset import Data
from ofa.data.images import Images
from ofa.data.loaders import Batches, eval_batches
from ofa.evaluate.calibrate import calibrate_all
from ofa.evaluate.metrics import Metrics, evaluate_all
from ofa.space.arch import Arch, Rows, Value
from ofa.supernet.supernet import Supernet

_AT_ONCE = 8
"""Networks that share a pass over images which do not all stay in memory."""


def extract_calibrated(supernet: Supernet, arch: Mapping[str, Value] | Rows, batches: Batches) -> nn.Module:
    """Extract a subnet, in eval mode, with BatchNorm statistics re-estimated on training batches of its resolution."""
    return _extract_calibrated(supernet, [arch], batches)[0]


def evaluate_subnets(
    supernet: Supernet,
    archs: Sequence[Arch],
    data: Data,
    images: Images,
    *,
    calibration_images: int,
    max_images: int | None = None,
) -> Iterator[tuple[Arch, Metrics]]:
    """Evaluate subnets whose BatchNorm statistics are re-estimated on training images, whatever they are evaluated on.

    Yields archs from the lowest resolution to the highest, so that images are prepared once for each; archs of one
    resolution keep their order. Duplicate archs are evaluated once. Images that do not all stay in memory are read once
    for several archs.

    `images` is the split of `data` to evaluate on, of which `max_images` are used at most, spread evenly;
    `calibration_images` is the number of training images for BatchNorm.
    """
    for resolution in sorted({int(arch["resolution"]) for arch in archs}):
        train_batches = eval_batches(data, data.train, resolution, limit=calibration_images)
        batches = eval_batches(data, images, resolution, limit=max_images)
        own = [arch for arch in dict.fromkeys(archs) if arch["resolution"] == resolution]
        at_once = 1 if batches.in_memory else _AT_ONCE
        for some in (own[i : i + at_once] for i in range(0, len(own), at_once)):
            networks = _extract_calibrated(supernet, some, train_batches)
            yield from zip(some, evaluate_all(networks, batches), strict=True)


def _extract_calibrated(
    supernet: Supernet, archs: Sequence[Mapping[str, Value] | Rows], batches: Batches
) -> list[nn.Module]:
    extracted = [supernet.extract(arch).to(distributed.device()) for arch in archs]
    networks = [network.to(memory_format=torch.channels_last) for network in extracted]
    calibrate_all(networks, batches)
    return networks
