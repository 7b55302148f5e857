"""Labelled images in three separate splits.

An image is a uint8 tensor `[channels, height, width]` of any size.
"""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

import numpy as np
import torch
from torchvision.datasets import FashionMNIST

from ofa.core.errors import DataError
from ofa.data.config import DataConfig
from ofa.data.dataset import Data, TensorImages, make_data
from ofa.data.splits import split_by_class

DEBIAN_FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")


def load_fashion_mnist(config: DataConfig) -> Data:
    """Fashion-MNIST: 70,000 gray images of 28 by 28 pixels, from a folder of IDX files or downloaded."""
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
    train, validation = split_by_class(parts[0].labels.numpy(), config.validation_percent)
    return make_data(
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
