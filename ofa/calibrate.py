"""BatchNorm re-estimation, and scores of networks.

The shared running statistics fit no subnet in particular; every subnet that is used on its own has its
BatchNorm statistics re-estimated on a few training images first (arXiv 1903.05134; BigNAS, 2003.11142, 3.2).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from ofa import distributed
from ofa.batches import Batches, eval_batches
from ofa.data import Data, Images
from ofa.space import Arch
from ofa.supernet import Supernet


@torch.no_grad()
def calibrate(network: nn.Module, batches: Batches) -> None:
    """Replaces the network's BatchNorm statistics by their plain average over training batches.

    Works in place and leaves the network in eval mode; give it an extracted network, as a subnet's
    statistics are shared with all others.

    Args:
        network: any module; one without BatchNorm is left as it is.
        batches: training images `[batch, channels, h, w]` with labels, which are not used.
    """
    network.eval()
    norms = [module for module in network.modules() if isinstance(module, _BatchNorm)]
    if not norms:
        return
    momenta, device = [norm.momentum for norm in norms], next(network.parameters()).device
    try:
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # a cumulative average
            norm.train()
        for images, _ in batches:
            network(images.to(device))
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
            norm.eval()


@dataclass(frozen=True)
class Scores:
    """How well a network classifies some images.

    Attributes:
        top1_percent: images whose label has the largest logit.
        top5_percent: images whose label is among the five largest logits; None with up to five classes.
        loss: mean cross-entropy, in nats.
    """

    top1_percent: float
    top5_percent: float | None
    loss: float


@torch.no_grad()
def scores(network: nn.Module, batches: Batches) -> Scores:
    """Scores of a network, which is put in eval mode, on at least one batch."""
    network.eval()
    device = next(network.parameters()).device
    answers = [(network(images.to(device)).cpu(), labels) for images, labels in batches]
    logits, labels = (torch.cat(parts) for parts in zip(*answers, strict=True))  # images x classes, images
    top1 = int((logits.argmax(1) == labels).sum())
    top5 = int((logits.topk(5).indices == labels[:, None]).sum()) if logits.shape[1] > 5 else None
    return Scores(
        top1_percent=100 * top1 / len(labels),
        top5_percent=None if top5 is None else 100 * top5 / len(labels),
        loss=float(nn.functional.cross_entropy(logits.double(), labels)),
    )


def accuracy_percent(network: nn.Module, batches: Batches) -> float:
    """Top-1 accuracy of a network, which is put in eval mode."""
    return scores(network, batches).top1_percent


def subnet_scores(
    supernet: Supernet,
    archs: Sequence[Arch],
    data: Data,
    images: Images,
    calibration_images: int,
    limit: int | None = None,
) -> Iterator[tuple[Arch, Scores]]:
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
                yield arch, scores(network, judged)
