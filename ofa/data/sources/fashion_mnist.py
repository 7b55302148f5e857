"""Fashion-MNIST, from IDX files."""

import gzip
import zlib
from pathlib import Path

import numpy as np
import torch
from torchvision.datasets import FashionMNIST

from ofa.core.errors import DataError
from ofa.data.config import DataConfig
from ofa.data.dataset import Data
from ofa.data.images import TensorImages
from ofa.data.splits import with_all_splits

DEBIAN_FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")


def fashion_mnist(config: DataConfig) -> Data:
    """Load Fashion-MNIST, 70,000 gray images of 28 by 28 pixels, from a folder of IDX files, or download it.

    A file that is missing, unreadable, or does not fit the others, or a failed download, is a DataError.
    """
    folder = config.folder or DEBIAN_FASHION_MNIST
    if not folder.is_dir():
        if config.folder is not None:
            raise DataError(f"no folder {folder}; give the folder of the Fashion-MNIST IDX files as data.folder")
        folder = _download_fashion_mnist()
    train, test = (_read_part(folder, part) for part in ("train", "t10k"))
    return with_all_splits("fashion_mnist", FashionMNIST.classes, {"train": train, "test": test}, config)


def _read_part(folder: Path, part: str) -> TensorImages:
    images, labels = (_read_idx(folder, f"{part}-{kind}-ubyte") for kind in ("images-idx3", "labels-idx1"))
    n_classes = len(FashionMNIST.classes)
    if images.ndim != 3 or not images.size or labels.shape != images.shape[:1] or labels.max() >= n_classes:
        raise DataError(
            f"{folder}: {part} has images of shape {images.shape} and labels of shape {labels.shape}, but needs images "
            "of shape [n, height, width] and a label from 0 to 9 for each; fetch the IDX files again"
        )
    return TensorImages(torch.from_numpy(images)[:, None], torch.from_numpy(labels.astype(np.int64)))


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


def _read_idx(folder: Path, name: str) -> np.ndarray:
    """Read an IDX file (yann.lecun.com/exdb/mnist) of unsigned bytes, plain or gzipped."""
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
