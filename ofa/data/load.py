"""Data sets by name."""

from dataclasses import replace

import numpy as np
import torch

from ofa.core.errors import DataError
from ofa.data.config import DataConfig
from ofa.data.dataset import Data, TensorImages, split_by_class
from ofa.data.fashion_mnist import load_fashion_mnist
from ofa.data.image_folder import load_image_folder


def load_data(config: DataConfig) -> Data:
    """Load a data set; the same configuration gives the same splits.

    Raises:
        DataError: the data set is missing, broken, or has too few images or classes.
    """
    loaders = {"digits": load_digits, "fashion_mnist": load_fashion_mnist, "image_folder": load_image_folder}
    try:
        data = loaders[config.name](config)
    except OSError as error:
        raise DataError(f"cannot read the data set {config.name!r}: {error}") from error
    return replace(data, workers=config.workers, cache_mib=config.cache_mib)


def load_digits(config: DataConfig) -> Data:
    """Load the handwritten digits of scikit-learn: 1797 gray images of 8 by 8 pixels."""
    from sklearn import datasets

    digits = datasets.load_digits()
    pixels, labels = (digits.images * (255 / 16)).round().astype(np.uint8), digits.target.astype(np.int64)
    remaining, test = split_by_class(labels, config.test_percent)
    train, validation = split_by_class(labels[remaining], config.validation_percent)
    images = TensorImages(torch.from_numpy(pixels)[:, None], torch.from_numpy(labels))
    positions = {"train": remaining[train], "validation": remaining[validation], "test": test}
    splits = {split: images.subset(part) for split, part in positions.items()}
    return Data.from_splits("digits", tuple("0123456789"), **splits)
