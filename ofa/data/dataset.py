"""Labelled images in three separate splits.

An image is a uint8 tensor `[channels, height, width]` of any size.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from ofa.core.errors import DataError


class Images(Protocol):
    """Images with labels, by position."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> tuple[Tensor, int]: ...


@dataclass(frozen=True)
class Data:
    """A data set. Search and predictors read `train` and `validation`; only final figures read `test`.

    Attributes:
        labels: class names, in the order of the logits.
        mean: per channel, of pixel values between 0 and 1; `std` likewise.
    """

    name: str
    labels: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    train: Images
    validation: Images
    test: Images

    @property
    def in_channels(self) -> int:
        """How many channels the images have."""
        return len(self.mean)

    def normalize(self, images: Tensor) -> Tensor:
        """Pixel values 0 to 255 `[..., channels, h, w]` to what networks take."""
        mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (self.mean, self.std))
        return (images / 255 - mean) / std


@dataclass(frozen=True)
class TensorImages:
    """Images in memory: uint8 `[n, channels, h, w]` and integer labels `[n]`."""

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.images[index], int(self.labels[index])

    def subset(self, chosen: np.ndarray) -> TensorImages:
        """The images at these positions."""
        return TensorImages(self.images[chosen], self.labels[chosen])


def make_data(name: str, labels: tuple[str, ...], train: Images, validation: Images, test: Images) -> Data:
    """A data set with the mean and standard deviation of up to 1000 of its training images."""
    if len(labels) < 2:
        raise DataError(f"data set {name!r} has the classes {labels}; a classifier needs at least two")
    sample = [train[int(i)][0] for i in np.linspace(0, len(train) - 1, min(len(train), 1000)).astype(np.int64)]
    pixels = torch.cat([image.flatten(1).double() for image in sample], dim=1) / 255
    mean, std = pixels.mean(dim=1), pixels.std(dim=1)
    if not bool((std > 0).all()):
        raise DataError(f"data set {name!r} has a constant channel; there is nothing to learn from")
    return Data(name, labels, tuple(mean.tolist()), tuple(std.tolist()), train, validation, test)
