"""BatchNorm re-estimation, and scores of networks.

The shared running statistics fit no subnet in particular; every subnet that is used on its own has its
BatchNorm statistics re-estimated on a few training images first (arXiv 1903.05134; BigNAS, 2003.11142, 3.2).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from ofa.core import distributed
from ofa.data.dataset import Data, Images
from ofa.data.loaders import eval_batches
from ofa.evaluate.calibrate import calibrate
from ofa.evaluate.metrics import Metrics, evaluate
from ofa.space.arch import Arch
from ofa.supernet.supernet import Supernet


def evaluate_subnets(
    supernet: Supernet,
    archs: Sequence[Arch],
    data: Data,
    images: Images,
    calibration_images: int,
    limit: int | None = None,
) -> Iterator[tuple[Arch, Metrics]]:
    """Scores of subnets, whose BatchNorm statistics are re-estimated on training images, whatever they are judged on.

    Goes from the lowest resolution to the highest, so that images are prepared once for each; archs of one
    resolution keep their order. An arch that is there several times comes once.

    Args:
        supernet: whose subnets.
        archs: of its family.
        data: whose training images.
        images: the split to judge on.
        calibration_images: how many training images.
        limit: only so many of the images to judge on, spread evenly.
    """
    for resolution in sorted({int(arch["resolution"]) for arch in archs}):
        training = eval_batches(data, data.train, resolution, limit=calibration_images)
        judged = eval_batches(data, images, resolution, limit=limit)
        for arch in dict.fromkeys(archs):
            if arch["resolution"] == resolution:
                network = supernet.extract(arch).to(distributed.device()).to(memory_format=torch.channels_last)
                calibrate(network, training)
                yield arch, evaluate(network, judged)
