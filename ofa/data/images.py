"""Labeled images by position: in memory, or in a store that reads them: files, arrays, records in shards."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from PIL.Image import Image
from torch import Tensor

from ofa.data.decode import Side, picture_of, pixels_of

Positions = NDArray[np.int64]


class Images(Protocol):
    """Labeled images by position; an image is a uint8 tensor `[channels, height, width]` of any size."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> tuple[Tensor, int]: ...

    def picture(self, index: int, side: Side | None = None) -> Image:
        """Return an image as a gray or RGB picture, as augmentation takes it.

        It may be smaller than it is stored where `side` is given, if its shorter side is not below what that says.
        """

    @property
    def labels(self) -> Tensor:
        """The labels of all images, integers `[n]`."""

    @property
    def fingerprints(self) -> NDArray[np.uint64]:
        """A number of each image `[n]`; equal images have equal numbers, others hardly ever."""

    def name(self, index: int) -> str:
        """Return what an image is called in messages, such as its path."""

    def subset(self, positions: Positions) -> "Images":
        """Return the images at some positions."""

    def digest(self) -> str:
        """Return a text that changes when an image or a label changes."""


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

    def picture(self, index: int, side: Side | None = None) -> Image:  # noqa: ARG002  # it is in memory already
        """See `Images.picture`."""
        return picture_of(self.images[index])

    @cached_property
    def fingerprints(self) -> NDArray[np.uint64]:
        """See `Images.fingerprints`."""
        return np.fromiter((short_hash(image.tobytes()) for image in self.images.numpy()), np.uint64, len(self))

    def name(self, index: int) -> str:
        """See `Images.name`."""
        return f"number {index}"

    def subset(self, positions: np.ndarray) -> "TensorImages":
        """Return the images at some positions."""
        return TensorImages(self.images[positions], self.labels[positions])

    def digest(self) -> str:
        """Return a hash of the shape, the images and the labels."""
        shape = str(tuple(self.images.shape)).encode()
        return hashlib.sha256(shape + self.images.numpy().tobytes() + self.labels.numpy().tobytes()).hexdigest()


class Store(Protocol):
    """Where the images of a data set lie."""

    def name(self, position: int) -> str:
        """Return what an image is called in messages, such as its path."""

    def picture(self, position: int, side: Side | None = None) -> Image:
        """See `Images.picture`; DataError if the image cannot be read."""

    def fingerprints(self, positions: Positions) -> NDArray[np.uint64]:
        """Return a number of each image that is another if the image is, for all that is practical."""


@dataclass(frozen=True, repr=False)
class StoredImages:
    """Images of a store: their positions in it `[n]`, and their labels `[n]`."""

    store: Store
    positions: Tensor
    labels: Tensor

    def __repr__(self) -> str:
        return f"StoredImages({len(self)} of {self.store})"

    def __len__(self) -> int:
        return len(self.positions)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return pixels_of(self.picture(index)), int(self.labels[index])

    def picture(self, index: int, side: Side | None = None) -> Image:
        """See `Images.picture`."""
        return self.store.picture(int(self.positions[index]), side)

    def name(self, index: int) -> str:
        """See `Images.name`."""
        return self.store.name(int(self.positions[index]))

    def subset(self, positions: Positions) -> "StoredImages":
        """Return the images at some positions."""
        rows = torch.from_numpy(positions)
        return replace(self, positions=self.positions[rows], labels=self.labels[rows])

    @cached_property
    def fingerprints(self) -> NDArray[np.uint64]:
        """See `Images.fingerprints`."""
        return self.store.fingerprints(self.positions.numpy())

    def digest(self) -> str:
        """Return a hash of the labels and the fingerprints."""
        return hashlib.sha256(self.labels.numpy().tobytes() + self.fingerprints.tobytes()).hexdigest()


def stored(store: Store, labels: Sequence[int] | NDArray[np.int64]) -> StoredImages:
    """Return all images of a store, with their labels."""
    return StoredImages(store, torch.arange(len(labels)), torch.as_tensor(np.asarray(labels, dtype=np.int64)))


def evenly(n: int, limit: int) -> Positions:
    """Return the positions of up to `limit` of n images, evenly spread."""
    return np.linspace(0, n - 1, min(n, limit)).astype(np.int64)


def positions_by_label(labels: NDArray[np.int64]) -> list[Positions]:
    """Return the ascending positions of each label, from 0 to the largest; in one pass, however many labels."""
    order = np.argsort(labels, kind="stable")
    return np.split(order, np.cumsum(np.bincount(labels))[:-1])


def short_hash(content: Any) -> int:
    """Return a hash of bytes as a number below 2^64."""
    return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "little")
