"""A data set: labeled images in three separate splits, and what a run records of it."""

import hashlib
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import torch
from pydantic import TypeAdapter, ValidationError
from torch import Tensor

from ofa.core.errors import DataError, listed
from ofa.core.pictures import WHITE, Color
from ofa.data.images import Images, evenly
from ofa.data.torch_dataset import dataset_images

SPLITS = ("train", "validation", "test")
_MEASURED_SIDE = 256
"""Shorter side in pixels at which images are measured, where they can be decoded at a reduced scale."""
_CACHED_VALUES = 2**15
"""Values that are normalized at once on CPUs: they stay in the cache, and torch takes one thread for so few, where
several would fight with the workers for the cores."""


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
            where = ".".join(map(str, problem["loc"])) or "JSON"
            raise DataError(f"{text[:80]!r} does not describe a data set: {where}: {problem['msg']}") from error


@dataclass(frozen=True, repr=False)
class Data(DataHeader):
    """A data set. Search and predictors read `train` and `validation`; only final figures read `test`.

    A split may be any `torch.utils.data.Dataset` of pairs of an image and a label, an integer from 0 on. An image is a
    PIL image, an array or a tensor, of integers from 0 to 255 or floats from 0 to 1, not normalized and not augmented.

    Attributes:
        labels: the names of the classes; by default their numbers.
        mean: by default that of up to 1000 training images, evenly spread; `std` likewise.
        sampler: which training images an epoch has; see `DataConfig`.
        workers: processes that prepare images for evaluation.
        cache_mib: MiB of those images that stay in memory; see `EvalBatches`.
        background: what transparent parts of its images were blended onto.
        notes: what a user may not expect of it, as sentences.

    Raises:
        DataError: there are fewer than two classes, a label is outside them, or a channel is constant.
    """

    name: str = "data"
    labels: tuple[str, ...] = ()
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    _: KW_ONLY
    train: Images
    validation: Images
    test: Images
    sampler: Literal["shuffled", "balanced"] = "shuffled"
    workers: int = 0
    cache_mib: int = 128
    background: Color = WHITE
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for split in SPLITS:
            images = getattr(self, split)
            if not hasattr(images, "digest"):
                object.__setattr__(self, split, dataset_images(images))
        if not self.labels:
            object.__setattr__(self, "labels", tuple(map(str, range(int(self.train.labels.max()) + 1))))
        if len(self.labels) < 2:
            raise DataError(f"data set {self.name!r} has the classes {self.labels}; a classifier needs at least two")
        for split in SPLITS:
            check_labels(self.name, split, getattr(self, split).labels, self.labels)
        if not self.mean:
            mean, std = _mean_and_std(self.name, self.train)
            object.__setattr__(self, "mean", mean)
            object.__setattr__(self, "std", std)

    def __repr__(self) -> str:
        sizes = ", ".join(f"{len(getattr(self, split))} {split}" for split in SPLITS)
        return f"Data({self.name!r}, {len(self.labels)} classes, {sizes} images)"

    @cached_property
    def info(self) -> DataInfo:
        """What a run records of the data; its digest opens all image files."""
        splits = (self.train, self.validation, self.test)
        n_train, n_validation, n_test = map(len, splits)
        digest = hashlib.sha256(" ".join(images.digest() for images in splits).encode()).hexdigest()
        return DataInfo(self.name, self.labels, self.mean, self.std, n_train, n_validation, n_test, digest)

    def normalize(self, images: Tensor) -> Tensor:
        """Normalize pixel values `[..., channels, height, width]` between 0 and 255 to what networks expect."""
        mean, std = (torch.tensor(values, device=images.device).view(-1, 1, 1) for values in (self.mean, self.std))
        values = torch.empty_like(images, dtype=torch.float32)
        n_channels, _, width = values.shape[-3:]
        blocks = [(values, images)]
        if values.stride()[-3:] == (1, width * n_channels, n_channels):  # the last in memory: whole rows take less time
            rows, pixels = (of.movedim(-3, -1).flatten(-2).flatten(0, -2) for of in (values, images))
            mean, std = (of_channels.flatten().repeat(width) for of_channels in (mean, std))
            n = max(1, _CACHED_VALUES // len(mean)) if images.device.type == "cpu" else len(rows)
            blocks = list(zip(torch.split(rows, n), torch.split(pixels, n), strict=True))
        for out, of_block in blocks:
            out.copy_(of_block).div_(255).sub_(mean).div_(std)
        return values


def check_labels(name: str, split: str, labels: Tensor, classes: Sequence[str]) -> None:
    """Raise a DataError unless a split of the data set `name` has labels `[n]`, each the number of a class."""
    if not len(labels):
        raise DataError(f"data set {name!r} has no images in {split}; add some, or leave the split out")
    for label in (int(labels.min()), int(labels.max())):
        if label < 0:
            raise DataError(
                f"data set {name!r} has the label {label} in {split}, and labels count from 0; mend the labels, or "
                "leave the split out if its images have none"
            )
        if label >= len(classes):
            raise DataError(
                f"data set {name!r} has the label {label} in {split}, but {len(classes)} classes: {listed(classes)}; "
                "mend the labels, or name all classes"
            )


def _mean_and_std(name: str, images: Images) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return the mean and the standard deviation of each channel, of values from 0 to 1."""
    positions = evenly(len(images), 1000).tolist()
    histograms = (np.array(images.picture(i, lambda _: _MEASURED_SIDE).histogram()) for i in positions)
    counts = np.reshape(sum(histograms), (-1, 256))  # of each pixel value: takes no memory, however large images are
    values, n_pixels = np.arange(256) / 255, counts.sum(axis=1)
    mean = counts @ values / n_pixels
    std = np.sqrt((counts * (values - mean[:, None]) ** 2).sum(axis=1) / (n_pixels - 1))
    if not (std > 0).all():
        raise DataError(f"data set {name!r} has a constant channel; there is nothing to learn from")
    return tuple(mean.tolist()), tuple(std.tolist())
