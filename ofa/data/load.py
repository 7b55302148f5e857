"""Labelled images in three separate splits.

An image is a uint8 tensor `[channels, height, width]` of any size.
"""

from __future__ import annotations

from ofa.data.config import DataConfig
from ofa.data.dataset import Data
from ofa.data.digits import load_digits_data
from ofa.data.fashion_mnist import load_fashion_mnist
from ofa.data.image_folder import load_image_folder


def load_data(config: DataConfig) -> Data:
    """Loads a data set; the same configuration gives the same splits.

    Raises:
        DataError: it is missing, unreadable, or a class has too few images.
    """
    return {"digits": load_digits_data, "fashion_mnist": load_fashion_mnist, "image_folder": load_image_folder}[
        config.name
    ](config)
