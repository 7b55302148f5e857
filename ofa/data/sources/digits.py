"""The handwritten digits that come with scikit-learn."""

import numpy as np
import torch

from ofa.data.config import DataConfig
from ofa.data.dataset import Data
from ofa.data.images import TensorImages
from ofa.data.splits import with_all_splits


def digits(config: DataConfig) -> Data:
    """Load 1797 gray images of 8 by 8 pixels."""
    from sklearn import datasets

    loaded = datasets.load_digits()
    pixels, labels = (loaded.images * (255 / 16)).round().astype(np.uint8), loaded.target.astype(np.int64)
    images = TensorImages(torch.from_numpy(pixels)[:, None], torch.from_numpy(labels))
    return with_all_splits("digits", "0123456789", {"train": images}, config)
