"""Folders of image files, one folder per class."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor
from torchvision.datasets import ImageFolder
from torchvision.transforms.v2 import functional as transforms

from ofa.core.errors import DataError
from ofa.data.config import DataConfig
from ofa.data.dataset import Data, split_by_class

_DIGEST_BYTES = 4096


@dataclass(frozen=True, repr=False)
class FileImages:
    """Image files, read on access: `(path, label)` of each, with 1 or 3 channels."""

    files: tuple[tuple[str, int], ...]
    in_channels: int

    def __repr__(self) -> str:
        return f"FileImages({len(self)} files, {self.in_channels} channels)"

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        path, label = self.files[index]
        with _reading(path), Image.open(path) as image:
            if image.mode[0] in "IF":
                raise ValueError(f"its mode is {image.mode}; scale it to 8 bits per channel")
            return transforms.pil_to_tensor(image.convert("RGB" if self.in_channels == 3 else "L")), label

    def digest(self) -> str:
        """Return a hash of labels, sizes of files, and their first and last bytes: whole files take long to read."""
        digest = hashlib.sha256()
        for path, label in self.files:
            with _reading(path), Path(path).open("rb") as file:
                head, size = file.read(_DIGEST_BYTES), file.seek(0, 2)
                file.seek(max(0, size - _DIGEST_BYTES))
                digest.update(f"{label} {size} ".encode() + head + file.read())
        return digest.hexdigest()


def load_image_folder(config: DataConfig) -> Data:
    """Load a folder with one folder of image files per class, or with such a folder for each split.

    Splits that have no folder are taken from the training images. A missing folder, a broken image, or splits whose
    classes differ are a DataError.
    """
    root = config.folder
    if root is None or not root.is_dir():
        raise DataError(f"no folder {root}; set data.folder to a folder with one folder of images per class")
    folders = {split: root / split for split in ("train", "validation", "test") if (root / split).is_dir()}
    if "train" not in folders:
        folders = {"train": root}
    listed = {split: _list_files(folder) for split, folder in folders.items()}
    labels, _ = listed["train"]
    for split, (names, _) in listed.items():
        if names != labels:
            raise DataError(f"{folders[split]} has the classes {names}, but the training images have {labels}")
    splits = {split: files for split, (_, files) in listed.items()}
    for split, percent in (("test", config.test_percent), ("validation", config.validation_percent)):
        if split not in splits:
            files = splits["train"]
            remaining, moved = split_by_class(np.array([label for _, label in files]), percent, labels)
            splits["train"], splits[split] = [files[i] for i in remaining], [files[i] for i in moved]
    images = {split: FileImages(tuple(files), config.in_channels) for split, files in splits.items()}
    return Data.from_splits(root.absolute().name, tuple(labels), **images)


def _list_files(root: Path) -> tuple[list[str], list[tuple[str, int]]]:
    """Return the names of the classes, and the path and label of each image."""
    try:
        folder = ImageFolder(str(root))
    except OSError as error:
        raise DataError(f"{root} is not a folder with one folder of images per class: {error}") from error
    for path, _ in folder.samples:
        with _reading(path):
            Image.open(path).close()  # reads the header only: cheap, and finds most broken files before training does
    return folder.classes, folder.samples


@contextmanager
def _reading(path: str) -> Iterator[None]:
    try:
        yield
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:  # all that Pillow raises
        raise DataError(f"cannot read the image {path} ({error}); repair or remove it") from error
