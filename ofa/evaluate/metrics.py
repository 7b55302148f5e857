"""Metrics of classifiers: accuracy and loss."""

from collections.abc import Sequence
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


class Tally:
    """Counts right answers and sums losses batch by batch, so that no logits are kept."""

    def __init__(self) -> None:
        self._n = self._n_top1 = self._n_top5 = self._n_classes = 0
        self._loss = 0.0

    def add(self, logits: Tensor, labels: Tensor) -> None:
        """Count logits `[n, classes]` against labels `[n]`."""
        self._n += len(labels)
        self._n_classes = logits.shape[1]
        self._n_top1 += int((logits.argmax(1) == labels).sum())
        if self._n_classes > 5:
            self._n_top5 += int((logits.topk(5).indices == labels[:, None]).sum())
        self._loss += float(nn.functional.cross_entropy(logits.double(), labels, reduction="sum"))

    @property
    def metrics(self) -> Metrics:
        """How well all logits so far agree with their labels."""
        return Metrics(
            top1_percent=100 * self._n_top1 / self._n,
            top5_percent=100 * self._n_top5 / self._n if self._n_classes > 5 else None,
            loss=self._loss / self._n,
        )


def evaluate(network: nn.Module, batches: Batches) -> Metrics:
    """Evaluate a network, which is put in eval mode, on one or more batches of images and labels."""
    return evaluate_all([network], batches)[0]


@torch.no_grad()
def evaluate_all(networks: Sequence[nn.Module], batches: Batches) -> list[Metrics]:
    """Evaluate networks, which are put in eval mode, in one pass over the batches."""
    tallies = [Tally() for _ in networks]
    devices = [next(network.eval().parameters()).device for network in networks]
    for images, labels in batches:
        for network, device, tally in zip(networks, devices, tallies, strict=True):
            tally.add(network(images.to(device)).cpu(), labels)
    return [tally.metrics for tally in tallies]
