"""Labelled images in three separate splits.

An image is a uint8 tensor `[channels, height, width]` of any size.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from ofa.core.config import Config


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
    """`image_folder`: 3 for color, 1 for gray."""
    validation_percent: float = Field(15.0, gt=0, le=40)
    """Share of the training images kept for validation where the data set brings no validation split."""
    test_percent: float = Field(20.0, gt=0, le=40)
    """Share of all images kept for the test where the data set brings no test split."""
    workers: int = Field(0, ge=0, le=64)
    """Processes that load images; 0 loads in the main process. Batches do not depend on it."""
    augment: AugmentConfig = AugmentConfig()
