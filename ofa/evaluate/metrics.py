"""Metrics of classifiers: accuracy and loss."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ofa.data.loaders import Batches


@dataclass(frozen=True)
class Metrics:
    """How well a network classifies some images.

    Attributes:
        top1_percent: share of images whose label has the largest logit.
        top5_percent: share of images whose label has one of the five largest logits; None with up to five classes.
        loss: mean cross-entropy, in nats.
    """

    top1_percent: float
    top5_percent: float | None
    loss: float


@torch.no_grad()
def evaluate(network: nn.Module, batches: Batches) -> Metrics:
    """Evaluate a network, which is put in eval mode, on one or more batches of images and labels."""
    network.eval()
    device = next(network.parameters()).device
    outputs = [(network(images.to(device)).cpu(), labels) for images, labels in batches]
    logits, labels = (torch.cat(parts) for parts in zip(*outputs, strict=True))  # images x classes, images
    return score(logits, labels)


def score(logits: Tensor, labels: Tensor) -> Metrics:
    """Return how well logits `[n, classes]` agree with labels `[n]`."""
    n_top1 = int((logits.argmax(1) == labels).sum())
    n_top5 = int((logits.topk(5).indices == labels[:, None]).sum()) if logits.shape[1] > 5 else None
    return Metrics(
        top1_percent=100 * n_top1 / len(labels),
        top5_percent=None if n_top5 is None else 100 * n_top5 / len(labels),
        loss=float(nn.functional.cross_entropy(logits.double(), labels)),
    )
