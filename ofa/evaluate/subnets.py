"""Evaluation of subnets, each with BatchNorm statistics of its own."""

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import nn

from ofa.core import distributed
from ofa.data.dataset import Data, Images
from ofa.data.loaders import Batches, eval_batches
from ofa.evaluate.calibrate import calibrate
from ofa.evaluate.metrics import Metrics, evaluate
from ofa.space.arch import Arch, Rows, Value
from ofa.supernet.supernet import Supernet


def extract_calibrated(supernet: Supernet, arch: Mapping[str, Value] | Rows, batches: Batches) -> nn.Module:
    """Extract a subnet, in eval mode, with BatchNorm statistics re-estimated on training batches of its resolution."""
    network = supernet.extract(arch).to(distributed.device()).to(memory_format=torch.channels_last)
    calibrate(network, batches)
    return network


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
    resolution keep their order. Duplicate archs are evaluated once.

    `images` is the split of `data` to evaluate on, of which `max_images` are used at most, spread evenly;
    `calibration_images` is the number of training images for BatchNorm.
    """
    for resolution in sorted({int(arch["resolution"]) for arch in archs}):
        train_batches = eval_batches(data, data.train, resolution, limit=calibration_images)
        batches = eval_batches(data, images, resolution, limit=max_images)
        for arch in dict.fromkeys(archs):
            if arch["resolution"] == resolution:
                yield arch, evaluate(extract_calibrated(supernet, arch, train_batches), batches)
