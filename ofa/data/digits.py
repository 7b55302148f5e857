"""Labelled images in three separate splits.

An image is a uint8 tensor `[channels, height, width]` of any size.
"""

from __future__ import annotations

import numpy as np
import torch

from ofa.data.config import DataConfig
from ofa.data.dataset import Data, TensorImages, make_data
from ofa.data.splits import split_by_class


def load_digits_data(config: DataConfig) -> Data:
    """The handwritten digits that come with scikit-learn: 1797 gray images of 8 by 8 pixels."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = torch.from_numpy((digits.images * (255 / 16)).round().astype(np.uint8))[:, None]
    everything = TensorImages(images, torch.from_numpy(digits.target.astype(np.int64)))
    labels = everything.labels.numpy()
    rest, test = split_by_class(labels, config.test_percent)
    train, validation = split_by_class(labels[rest], config.validation_percent)
    splits = (everything.subset(rest[train]), everything.subset(rest[validation]), everything.subset(test))
    return make_data("digits", tuple("0123456789"), *splits)
