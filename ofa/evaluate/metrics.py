"""BatchNorm re-estimation, and scores of networks.

The shared running statistics fit no subnet in particular; every subnet that is used on its own has its
BatchNorm statistics re-estimated on a few training images first (arXiv 1903.05134; BigNAS, 2003.11142, 3.2).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from ofa.data.loaders import Batches


@dataclass(frozen=True)
class Metrics:
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
def evaluate(network: nn.Module, batches: Batches) -> Metrics:
    """Scores of a network, which is put in eval mode, on at least one batch."""
    network.eval()
    device = next(network.parameters()).device
    answers = [(network(images.to(device)).cpu(), labels) for images, labels in batches]
    logits, labels = (torch.cat(parts) for parts in zip(*answers, strict=True))  # images x classes, images
    top1 = int((logits.argmax(1) == labels).sum())
    top5 = int((logits.topk(5).indices == labels[:, None]).sum()) if logits.shape[1] > 5 else None
    return Metrics(
        top1_percent=100 * top1 / len(labels),
        top5_percent=None if top5 is None else 100 * top5 / len(labels),
        loss=float(nn.functional.cross_entropy(logits.double(), labels)),
    )


def top1_percent(network: nn.Module, batches: Batches) -> float:
    """Top-1 accuracy of a network, which is put in eval mode."""
    return evaluate(network, batches).top1_percent
