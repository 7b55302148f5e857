"""A network trained alone by a plain loop that knows nothing of supernets, and its accuracy."""

from collections.abc import Callable

import torch
from timm.optim import create_optimizer_v2
from timm.utils import ModelEmaV3
from torch import nn

import ofa
from ofa.data.config import AugmentConfig
from ofa.data.dataset import Data
from ofa.data.loaders import Batches, train_batches
from ofa.train.losses import label_loss
from ofa.train.schedule import Schedule


def train_alone(
    build: Callable[[], nn.Module],
    resolution: int,
    data: Data,
    augment: AugmentConfig,
    config: ofa.TrainConfig,
    seed: int,
) -> nn.Module:
    """Train a static network from the labels, with a supernet's settings for all else; returns its moving average.

    The seed is that of its initial weights, too, so the network is built here.
    """
    assert config.ema_decay is not None
    torch.manual_seed(seed)
    network = build().to(memory_format=torch.channels_last).train()
    optimizer = create_optimizer_v2(
        network, config.optimizer, lr=config.lr, weight_decay=config.weight_decay, momentum=config.momentum
    )
    schedule = Schedule(optimizer, config, len(data.train) // config.batch_size)
    loss = label_loss(config.label_smoothing)
    ema = ModelEmaV3(network, config.ema_decay, use_warmup=True)
    steps = range(sum(phase.epochs for phase in config.phases) * (len(data.train) // config.batch_size))
    batches = train_batches(
        data, augment, resolution=lambda _: resolution, batch_size=config.batch_size, seed=seed, steps=steps
    )
    for step, (images, labels) in zip(steps, batches, strict=True):
        schedule.set(step)
        optimizer.zero_grad()
        loss(network(images.contiguous(memory_format=torch.channels_last)), labels).backward()  # type: ignore[no-untyped-call]  # torch's is not typed
        optimizer.step()
        ema.update(network, step=step)
    averaged: nn.Module = ema.module
    return averaged


class Scorer:
    """Accuracies of networks on all validation and test images of a data set, and on as many training images.

    BatchNorm statistics are re-estimated on some training images first.
    """

    def __init__(self, data: Data, calibration_images: int) -> None:
        self.data, self.calibration_images = data, calibration_images
        self._loaded: dict[tuple[str, int, int | None], Batches] = {}

    def __call__(self, network: nn.Module, resolution: int) -> dict[str, float]:
        """Return the top-1 accuracies in percent by split; training images are not augmented."""
        network = network.to(memory_format=torch.channels_last)
        ofa.calibrate(network, self._batches("train", resolution, self.calibration_images))
        limits = {"train": len(self.data.test), "validation": None, "test": None}
        return {
            split: ofa.evaluate(network, self._batches(split, resolution, limit)).top1_percent
            for split, limit in limits.items()
        }

    def _batches(self, split: str, resolution: int, limit: int | None) -> Batches:
        key = split, resolution, limit
        if key not in self._loaded:
            self._loaded[key] = ofa.eval_batches(self.data, getattr(self.data, split), resolution, limit=limit)
        return self._loaded[key]
