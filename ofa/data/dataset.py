"""A data set: labeled images in three separate splits, and what a run records of it."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
import torch
from pydantic import TypeAdapter, ValidationError
from torch import Tensor

from ofa.core.errors import DataError


class Images(Protocol):
    """Labeled images by position; an image is a uint8 tensor `[channels, height, width]` of any size."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> tuple[Tensor, int]: ...

    def digest(self) -> str:
        """Return a text that changes when an image or a label changes."""


@dataclass(frozen=True)
class DataHeader:
    """The name of a data set, its classes in the order of the logits, and the normalization of its images.

    `mean` and `std` are the mean and the standard deviation of each channel, of pixel values between 0 and 1.
    """

    name: str
    labels: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @property
    def in_channels(self) -> int:
        """The number of channels of an image."""
        return len(self.mean)


@dataclass(frozen=True)
class DataInfo(DataHeader):
    """What a run records of its data, so that stages without images need not load any.

    Beside the numbers of images, `digest` is a text that changes when an image, a label or a split changes.
    """

    n_train: int
    n_validation: int
    n_test: int
    digest: str

    @classmethod
    def from_json(cls, text: str) -> "DataInfo":
        """Parse a JSON object with these attributes; DataError if `text` is something else."""
        try:
            return TypeAdapter(cls).validate_json(text, strict=True)
        except ValidationError as error:
            problem = error.errors()[0]
            raise DataError(f"{text[:80]!r} does not describe a data set: {problem['loc']} {problem['msg']}") from error


@dataclass(frozen=True, repr=False)
class Data(DataHeader):
    """A data set. Search and predictors read `train` and `validation`; only final figures read `test`.

    `workers` processes prepare images for evaluation, of which `cache_mib` MiB stay in memory; see `EvalBatches`.
    """

    train: Images
    validation: Images
    test: Images
    workers: int = 0
    cache_mib: int = 256

    def __repr__(self) -> str:
        sizes = ", ".join(f"{len(getattr(self, split))} {split}" for split in ("train", "validation", "test"))
        return f"Data({self.name!r}, {len(self.labels)} classes, {sizes} images)"

    @classmethod
    def from_splits(
        cls, name: str, labels: tuple[str, ...], *, train: Images, validation: Images, test: Images
    ) -> "Data":
        """Create a data set with the mean and standard deviation of up to 1000 training images, evenly spread.

        Fewer than two classes, or a channel that is constant, are a DataError.
        """
        if len(labels) < 2:
            raise DataError(f"data set {name!r} has the classes {labels}; a classifier needs at least two")
        counts = np.zeros((len(train[0][0]), 256))  # of each pixel value: takes no memory, however large images are
        for index in np.linspace(0, len(train) - 1, min(len(train), 1000)).astype(np.int64).tolist():
            counts += [np.bincount(channel.flatten(), minlength=256) for channel in train[index][0].numpy()]
        values, n_pixels = np.arange(256) / 255, counts.sum(axis=1)
        mean = counts @ values / n_pixels
        std = np.sqrt((counts * (values - mean[:, None]) ** 2).sum(axis=1) / (n_pixels - 1))
        if not (std > 0).all():
            raise DataError(f"data set {name!r} has a constant channel; there is nothing to learn from")
        return cls(name, labels, tuple(mean.tolist()), tuple(std.tolist()), train, validation, test)

    @cached_property
    def info(self) -> DataInfo:
        """What a run records of the data; its digest opens all image files."""
        splits = (self.train, self.validation, self.test)
        n_train, n_validation, n_test = map(len, splits)
        digest = hashlib.sha256(" ".join(images.digest() for images in splits).encode()).hexdigest()
        return DataInfo(self.name, self.labels, self.mean, self.std, n_train, n_validation, n_test, digest)

    def normalize(self, images: Tensor) -> Tensor:
        """Normalize pixel values `[..., channels, height, width]` between 0 and 255 to what networks expect."""
        mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (self.mean, self.std))
        return (images / 255 - mean) / std


@dataclass(frozen=True, repr=False)
class TensorImages:
    """Images in memory: uint8 `[n, channels, height, width]` and integer labels `[n]`."""

    images: Tensor
    labels: Tensor

    def __repr__(self) -> str:
        return f"TensorImages({tuple(self.images.shape)})"

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.images[index], int(self.labels[index])

    def subset(self, positions: np.ndarray) -> "TensorImages":
        """Return the images at some positions."""
        return TensorImages(self.images[positions], self.labels[positions])

    def digest(self) -> str:
        """Return a hash of the shape, the images and the labels."""
        shape = str(tuple(self.images.shape)).encode()
        return hashlib.sha256(shape + self.images.numpy().tobytes() + self.labels.numpy().tobytes()).hexdigest()


def split_by_class(labels: np.ndarray, percent: float, names: Sequence[str] = ()) -> tuple[np.ndarray, np.ndarray]:
    """Move `percent` of the images of each class, at least one, to a second part.

    Returns the ascending positions of the first and of the second part in `labels` `[n]`. A class, called as in
    `names`, that has fewer than two images is a DataError.
    """
    rng = np.random.default_rng(0)
    moved = []
    for label in range(int(labels.max()) + 1):
        positions = rng.permutation(np.flatnonzero(labels == label))
        if len(positions) < 2:
            raise DataError(
                f"class {names[label] if names else label!r} has too few images to split; every class needs at least "
                "3: one each for training, validation and test"
            )
        moved.append(positions[: max(1, round(len(positions) * percent / 100))])
    second = np.sort(np.concatenate(moved))
    return np.setdiff1d(np.arange(len(labels)), second), second
