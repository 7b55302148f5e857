"""Labelled images in three separate splits.

An image is a uint8 tensor `[channels, height, width]` of any size.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
import torch
from PIL import Image
from pydantic import Field
from torch import Tensor
from torchvision.datasets import FashionMNIST, ImageFolder
from torchvision.transforms.v2 import functional as transforms

from ofa.config import Config
from ofa.errors import DataError

_BROKEN_IMAGE = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)  # all that Pillow raises for one
DEBIAN_FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")


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

    def normalise(self, images: Tensor) -> Tensor:
        """Pixel values 0 to 255 `[..., channels, h, w]` to what networks take."""
        mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (self.mean, self.std))
        return (images / 255 - mean) / std


class AugmentConfig(Config):
    """Training augmentation, by timm's `create_transform`."""

    scale: tuple[float, float] = Field((0.7, 1.0), strict=False)
    """Range of the area of the random crop, as a share of the image."""
    ratio: tuple[float, float] = Field((0.85, 1.18), strict=False)
    """Range of the aspect ratio of the random crop."""
    hflip: float = Field(0.0, ge=0, le=1)
    """Probability of a horizontal flip."""
    auto_augment: str | None = None
    """Such as `rand-m9-mstd0.5-inc1` (RandAugment)."""
    erase: float = Field(0.0, ge=0, le=1)
    """Probability of random erasing."""
    mixup: float = Field(0.0, ge=0)
    """Alpha of mixup over a batch, such as 0.8; 0: none."""
    cutmix: float = Field(0.0, ge=0)
    """Alpha of cutmix, such as 1.0; where mixup is given too, each batch takes one of them."""


class DataConfig(Config):
    """Which images, and how they are split and augmented."""

    name: Literal["digits", "fashion_mnist", "image_folder"]
    """`digits` comes with scikit-learn; `image_folder` is any folder of images."""
    folder: Path | None = Field(None, strict=False)
    """`fashion_mnist`: where the IDX files are. `image_folder`: `folder/class/image`, or `folder/train/class/...`
    with `validation` and `test` beside it if they exist."""
    in_channels: Literal[1, 3] = 3
    """`image_folder`: 3 for colour, 1 for grey."""
    validation_percent: float = Field(15.0, gt=0, le=40)
    """Share of the training images kept for validation where the data set brings no validation split."""
    test_percent: float = Field(20.0, gt=0, le=40)
    """Share of all images kept for the test where the data set brings no test split."""
    workers: int = Field(0, ge=0, le=64)
    """Processes that load images; 0 loads in the main process. Batches do not depend on it."""
    augment: AugmentConfig = AugmentConfig()


def load(config: DataConfig) -> Data:
    """Loads a data set; the same configuration gives the same splits.

    Raises:
        DataError: it is missing, unreadable, or a class has too few images.
    """
    return {"digits": _digits, "fashion_mnist": _fashion_mnist, "image_folder": _image_folder}[config.name](config)


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


@dataclass(frozen=True)
class FileImages:
    """Image files, read when asked for."""

    files: tuple[tuple[str, int], ...]
    in_channels: int

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        path, label = self.files[index]
        try:
            with Image.open(path) as image:
                if image.mode[0] in "IF":
                    raise ValueError(f"its mode is {image.mode}; scale it to 8 bits per channel")
                pixels = image.convert("RGB" if self.in_channels == 3 else "L")
        except _BROKEN_IMAGE as error:
            raise DataError(f"cannot read the image {path} ({error}); mend or remove it") from error
        return transforms.pil_to_tensor(pixels), label


def _digits(config: DataConfig) -> Data:
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = torch.from_numpy((digits.images * (255 / 16)).round().astype(np.uint8))[:, None]
    everything = TensorImages(images, torch.from_numpy(digits.target.astype(np.int64)))
    labels = everything.labels.numpy()
    rest, test = _split(labels, config.test_percent)
    train, validation = _split(labels[rest], config.validation_percent)
    splits = (everything.subset(rest[train]), everything.subset(rest[validation]), everything.subset(test))
    return _data("digits", tuple("0123456789"), *splits)


def _fashion_mnist(config: DataConfig) -> Data:
    folder = config.folder or DEBIAN_FASHION_MNIST
    if not folder.is_dir():
        if config.folder is not None:
            raise DataError(f"no folder {folder}; give the folder of the Fashion-MNIST IDX files as data.folder")
        folder = _download_fashion_mnist()
    parts = []
    for part in ("train", "t10k"):
        images, labels = _idx(folder, f"{part}-images-idx3-ubyte"), _idx(folder, f"{part}-labels-idx1-ubyte")
        if images.ndim != 3 or labels.shape != images.shape[:1] or labels.max() >= len(FashionMNIST.classes):
            raise DataError(
                f"{folder}: {part} has images of shape {images.shape} and labels of shape {labels.shape}, one of "
                "0 to 9 for each image is wanted; fetch the IDX files again"
            )
        parts.append(TensorImages(torch.from_numpy(images)[:, None], torch.from_numpy(labels.astype(np.int64))))
    train, validation = _split(parts[0].labels.numpy(), config.validation_percent)
    return _data(
        "fashion_mnist", tuple(FashionMNIST.classes), parts[0].subset(train), parts[0].subset(validation), parts[1]
    )


def _download_fashion_mnist() -> Path:
    root = Path(torch.hub.get_dir()).parent / "ofa"
    try:
        FashionMNIST(str(root), download=True)
    except (OSError, RuntimeError) as error:
        raise DataError(
            f"Fashion-MNIST is not in {DEBIAN_FASHION_MNIST} and cannot be downloaded ({error}); install Debian's "
            "package dataset-fashion-mnist, or give the folder of its IDX files as data.folder"
        ) from error
    return root / "FashionMNIST" / "raw"


def _idx(folder: Path, name: str) -> np.ndarray:
    """Reads an IDX file (yann.lecun.com/exdb/mnist), plain or gzipped, of unsigned bytes."""
    plain, zipped = folder / name, folder / f"{name}.gz"
    if not plain.exists() and not zipped.exists():
        raise DataError(f"{folder} has neither {name} nor {name}.gz; give the folder of the IDX files as data.folder")
    try:
        content = plain.read_bytes() if plain.exists() else gzip.decompress(zipped.read_bytes())
        n_dims = content[3]
        shape = np.frombuffer(content, ">u4", n_dims, offset=4)
        if content[:3] != b"\x00\x00\x08":
            raise ValueError("it does not begin as an IDX file of bytes does")
        return np.frombuffer(content, np.uint8, offset=4 + 4 * n_dims).reshape(shape).copy()
    except (OSError, EOFError, ValueError, IndexError, zlib.error) as error:
        raise DataError(f"{folder / name} is not a readable IDX file ({error}); fetch it again") from error


def _image_folder(config: DataConfig) -> Data:
    root = config.folder
    if root is None or not root.is_dir():
        raise DataError(f"no folder {root}; set data.folder to a folder with one folder of images per class")
    found = {split: _files(root / split) for split in ("train", "validation", "test") if (root / split).is_dir()}
    if "train" not in found:
        found = {"train": _files(root)}
    labels, files = found["train"]
    for split, (names, _) in found.items():
        if names != labels:
            raise DataError(f"{root / split} has the classes {names}, but the training images have {labels}")
    parts = {split: files for split, (_, files) in found.items()}
    for split, percent in (("test", config.test_percent), ("validation", config.validation_percent)):
        if split not in parts:
            kept, moved = _split(np.array([label for _, label in files]), percent, labels)
            parts[split] = [files[i] for i in moved]
            files = parts["train"] = [files[i] for i in kept]
    splits = [FileImages(tuple(parts[s]), config.in_channels) for s in ("train", "validation", "test")]
    return _data(root.name, tuple(labels), *splits)


def _files(root: Path) -> tuple[list[str], list[tuple[str, int]]]:
    try:
        folder = ImageFolder(str(root))
    except (FileNotFoundError, OSError) as error:
        raise DataError(f"{root} is not a folder with one folder of images per class: {error}") from error
    for path, _ in folder.samples:
        try:
            Image.open(path).close()  # the header only: cheap, and finds most broken files before training does
        except _BROKEN_IMAGE as error:
            raise DataError(f"cannot read the image {path} ({error}); mend or remove it") from error
    return folder.classes, folder.samples


def _split(labels: np.ndarray, percent: float, names: Sequence[str] = ()) -> tuple[np.ndarray, np.ndarray]:
    """Positions kept and positions moved, at least one of each per class, in the same shares for every class."""
    rng = np.random.default_rng(0)
    moved = []
    for label in range(int(labels.max()) + 1):
        members = rng.permutation(np.flatnonzero(labels == label))
        if len(members) < 2:
            name = names[label] if names else label
            raise DataError(
                f"class {name!r} has too few images to split; every class needs at least 3: "
                "one each for training, validation and test"
            )
        moved.append(members[: max(1, round(len(members) * percent / 100))])
    out = np.sort(np.concatenate(moved))
    return np.setdiff1d(np.arange(len(labels)), out), out


def _data(name: str, labels: tuple[str, ...], train: Images, validation: Images, test: Images) -> Data:
    if len(labels) < 2:
        raise DataError(f"data set {name!r} has the classes {labels}; a classifier needs at least two")
    sample = [train[int(i)][0] for i in np.linspace(0, len(train) - 1, min(len(train), 1000)).astype(np.int64)]
    pixels = torch.cat([image.flatten(1).double() for image in sample], dim=1) / 255
    mean, std = pixels.mean(dim=1), pixels.std(dim=1)
    if not bool((std > 0).all()):
        raise DataError(f"data set {name!r} has a constant channel; there is nothing to learn from")
    return Data(name, labels, tuple(mean.tolist()), tuple(std.tolist()), train, validation, test)
