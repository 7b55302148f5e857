"""Labelled images in three separate splits.

An image is a uint8 tensor `[channels, height, width]` of any size.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor
from torchvision.datasets import ImageFolder
from torchvision.transforms.v2 import functional as transforms

from ofa.core.errors import DataError
from ofa.data.config import DataConfig
from ofa.data.dataset import Data, make_data
from ofa.data.splits import split_by_class

_BROKEN_IMAGE = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)  # all that Pillow raises for one


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


def load_image_folder(config: DataConfig) -> Data:
    """Image files in one folder per class; splits that are missing are taken from the training images."""
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
            kept, moved = split_by_class(np.array([label for _, label in files]), percent, labels)
            parts[split] = [files[i] for i in moved]
            files = parts["train"] = [files[i] for i in kept]
    splits = [FileImages(tuple(parts[s]), config.in_channels) for s in ("train", "validation", "test")]
    return make_data(root.name, tuple(labels), *splits)


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
