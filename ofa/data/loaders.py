"""The batches that training and evaluation read.

Batches are float tensors `[batch, channels, resolution, resolution]`, normalized. Evaluation scales the shorter
side to the resolution (bilinear, antialiased) and crops the center. Augmentation is timm's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from timm.data import create_transform
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms.v2 import functional as transforms

from ofa.data.config import AugmentConfig
from ofa.data.dataset import Data, Images
from ofa.data.transforms import resize_center_crop, restored_generators, seed_generators

Batches = Sequence[tuple[Tensor, Tensor]]


def train_batches(
    data: Data,
    augment: AugmentConfig,
    resolution: Callable[[int], int],
    *,
    batch_size: int,
    seed: int,
    epoch: int,
    start: int = 0,
    part: slice = slice(None),
    workers: int = 0,
) -> DataLoader[tuple[Tensor, Tensor]]:
    """One epoch of shuffled, augmented batches; a last, smaller batch is left out.

    Order and augmentation of an image depend on the seed, the epoch and its index alone, so a resumed
    epoch that skips its first `start` batches goes on exactly as the whole one would have, and so does one that is
    shared among another number of processes.

    Args:
        data: whose training images.
        augment: augmentation of the images.
        resolution: height and width of the images of each batch in pixels, by its number in the epoch.
        batch_size: images per batch.
        seed: of the whole training.
        epoch: counted from 0.
        start: the first batch to give.
        part: the images of each batch to give.
        workers: processes that load images; 0 loads in this one.
    """
    order = np.random.default_rng((seed, epoch)).permutation(len(data.train))
    batches = order[: len(order) // batch_size * batch_size].reshape(-1, batch_size)
    return DataLoader(
        _Augmented(data, augment, seed, epoch),
        batch_sampler=_Sized(batches[:, part], resolution, start),
        num_workers=workers,
        generator=torch.Generator(),  # the loader draws a seed, by default from the global generator
    )


def eval_batches(
    data: Data, images: Images, resolution: int, batch_size: int = 250, limit: int | None = None
) -> list[tuple[Tensor, Tensor]]:
    """Batches as deployed networks see images, kept in memory to be used for many networks.

    Args:
        data: brings the normalization.
        images: one of its splits.
        resolution: height and width in pixels.
        batch_size: images per batch, at most; all batches are of one size or of one image less, so that each
            weighs the same where batches are averaged.
        limit: only so many images, spread evenly over the split.
    """
    chosen = np.arange(len(images))
    if limit is not None and limit < len(images):
        chosen = np.linspace(0, len(images) - 1, limit).astype(np.int64)
    batches = []
    for part in np.array_split(chosen, -(-len(chosen) // batch_size)):
        pairs = [images[int(i)] for i in part]
        batch = torch.stack([resize_center_crop(image.float(), resolution) for image, _ in pairs])
        batches.append((data.normalize(batch), torch.tensor([label for _, label in pairs])))
    return batches


@dataclass(frozen=True)
class _Sized:
    """The batches of an epoch from `start` on: `(position, resolution)` of each image."""

    batches: np.ndarray
    resolution: Callable[[int], int]
    start: int

    def __len__(self) -> int:
        return len(self.batches) - self.start

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        for number in range(self.start, len(self.batches)):
            resolution = self.resolution(number)
            yield [(index, resolution) for index in self.batches[number].tolist()]


class _Augmented(Dataset[tuple[Tensor, Tensor]]):
    def __init__(self, data: Data, config: AugmentConfig, seed: int, epoch: int) -> None:
        self.images, self.mean, self.std = data.train, data.mean, data.std
        self.config, self.seed, self.epoch = config, seed, epoch
        self.transforms: dict[int, Any] = {}

    def __len__(self) -> int:
        return len(self.images)

    def __getitems__(self, batch: list[tuple[int, int]]) -> list[tuple[Tensor, int]]:
        """All images of a batch, as the loader asks for them: generators are put back once for all."""
        augmented = []
        with restored_generators():
            for index, resolution in batch:
                if resolution not in self.transforms:
                    self.transforms[resolution] = self._transform(resolution)
                image, label = self.images[index]
                seed_generators(self.seed, self.epoch, index)
                augmented.append((self.transforms[resolution](transforms.to_pil_image(image)), label))
        return augmented

    def _transform(self, resolution: int) -> Any:
        return create_transform(
            resolution,
            is_training=True,
            scale=self.config.scale,
            ratio=self.config.ratio,
            hflip=self.config.hflip,
            color_jitter=None,  # type: ignore[arg-type]  # timm takes None
            auto_augment=self.config.auto_augment,
            interpolation="bilinear",
            mean=self.mean,
            std=self.std,
            re_prob=self.config.erase,
        )
