"""Labelled images in three separate splits, and the batches that training and evaluation read.

An image is a uint8 tensor `[channels, height, width]` of any size; batches are float tensors
`[batch, channels, resolution, resolution]`, normalised. Evaluation scales the shorter side to the
resolution (bilinear, antialiased) and crops the centre. Augmentation is timm's.
"""

from __future__ import annotations

import gzip
import random
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import torch
from PIL import Image
from pydantic import Field
from timm.data import create_transform
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.datasets import FashionMNIST, ImageFolder
from torchvision.transforms.v2 import functional as transforms

from ofa.config import Config
from ofa.errors import DataError

Batches = Sequence[tuple[Tensor, Tensor]]
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


# Batches


def train_batches(
    data: Data,
    config: DataConfig,
    resolution: Callable[[int], int],
    batch_size: int,
    seed: int,
    epoch: int,
    start: int = 0,
    part: slice = slice(None),
) -> DataLoader[tuple[Tensor, Tensor]]:
    """One epoch of shuffled, augmented batches; a last, smaller batch is left out.

    Order and augmentation of an image depend on the seed, the epoch and its index alone, so a resumed
    epoch that skips its first `start` batches goes on exactly as the whole one would have, and so does one that is
    shared among another number of processes.

    Args:
        data: whose training images.
        config: augmentation and loading.
        resolution: height and width of the images of each batch in pixels, by its number in the epoch.
        batch_size: images per batch.
        seed: of the whole training.
        epoch: counted from 0.
        start: the first batch to give.
        part: the images of each batch to give.
    """
    order = np.random.default_rng((seed, epoch)).permutation(len(data.train))
    batches = order[: len(order) // batch_size * batch_size].reshape(-1, batch_size)
    return DataLoader(
        _Augmented(data, config.augment, seed, epoch),
        batch_sampler=_Sized(batches[:, part], resolution, start),
        num_workers=config.workers,
        generator=torch.Generator(),  # the loader draws a seed, by default from the global generator
    )


def eval_batches(
    data: Data, images: Images, resolution: int, batch_size: int = 250, limit: int | None = None
) -> list[tuple[Tensor, Tensor]]:
    """Batches as deployed networks see images, kept in memory to be used for many networks.

    Args:
        data: brings the normalisation.
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
        batch = torch.stack([fit(image.float(), resolution) for image, _ in pairs])
        batches.append((data.normalise(batch), torch.tensor([label for _, label in pairs])))
    return batches


def fit(images: Tensor, resolution: int) -> Tensor:
    """Scales the shorter side of float images `[..., h, w]` to the resolution and crops the centre."""
    if images.shape[-2:] == (resolution, resolution):
        return images
    scaled = transforms.resize(images, [resolution], antialias=True)
    cropped: Tensor = transforms.center_crop(scaled, [resolution, resolution])
    return cropped


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
        with _kept_generators():
            for index, resolution in batch:
                if resolution not in self.transforms:
                    self.transforms[resolution] = self._transform(resolution)
                image, label = self.images[index]
                _seed_generators(self.seed, self.epoch, index)
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


@contextmanager
def seeded(*seeds: int) -> Iterator[None]:
    """Seeds the global generators, which timm's augmentation draws from, and puts them back."""
    with _kept_generators():
        _seed_generators(*seeds)
        yield


def _seed_generators(*seeds: int) -> None:
    seed = int(np.random.SeedSequence(seeds).generate_state(1)[0])
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    torch.default_generator.manual_seed(seed)  # torch.manual_seed notes the call for GPUs, which takes longer


@contextmanager
def _kept_generators() -> Iterator[None]:
    kept = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    try:
        yield
    finally:
        random.setstate(kept[0])
        np.random.set_state(kept[1])  # noqa: NPY002
        torch.set_rng_state(kept[2])


# Data sets


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
