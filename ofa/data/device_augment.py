"""Augmentation on the device: workers decode and crop, the device resizes, flips, normalizes and erases.

The random draws are those of timm's transform, in the same order, so images differ by rounding alone.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from PIL.Image import Image
from timm.data.random_erasing import RandomErasing
from timm.data.transforms import RandomResizedCropAndInterpolation
from torch import Tensor
from torchvision.transforms.v2 import functional as transforms

from ofa.data.config import AugmentConfig


class Crop(NamedTuple):
    """A random crop of an image, and what is left to do to it.

    Attributes:
        pixels: uint8 `[height, width, channels]`, of any size.
        flipped: whether to flip it horizontally.
        kept: bool `[resolution, resolution]`, false where it is erased.
    """

    pixels: Tensor
    flipped: bool
    kept: Tensor


class Crops(NamedTuple):
    """The crops of a batch.

    Attributes:
        pixels: uint8 of all crops, one after the other, in one piece that is moved at once.
        shapes: height, width and channels of each crop.
        flipped: bool `[batch, 1, 1, 1]`.
        kept: bool `[batch, 1, resolution, resolution]`.
    """

    pixels: Tensor
    shapes: list[torch.Size]
    flipped: Tensor
    kept: Tensor


def random_crop(config: AugmentConfig, resolution: int) -> Callable[[Image], Crop]:
    """Return a function that draws from the global generators what timm's transform would, and crops a picture."""
    erase = RandomErasing(config.erase, device="cpu")

    def crop(picture: Image) -> Crop:
        top, left, height, width = RandomResizedCropAndInterpolation.get_params(picture, config.scale, config.ratio)
        part = np.array(picture.crop((left, top, left + width, top + height)))
        flipped = config.hflip > 0 and float(torch.rand(1)) < config.hflip
        kept = torch.ones(1, resolution, resolution)
        if config.erase > 0:
            kept = erase(kept)
        return Crop(torch.from_numpy(part.reshape(height, width, -1)), flipped, kept[0].bool())

    return crop


def packed(crops: list[Crop]) -> Crops:
    """Return the crops of a batch in few tensors."""
    pixels = torch.cat([crop.pixels.flatten() for crop in crops])
    shapes = [crop.pixels.shape for crop in crops]
    flipped = torch.tensor([crop.flipped for crop in crops]).view(-1, 1, 1, 1)
    return Crops(pixels, shapes, flipped, torch.stack([crop.kept for crop in crops])[:, None])


def augmented(crops: Crops, device: torch.device, normalize: Callable[[Tensor], Tensor]) -> Tensor:
    """Resize, flip, normalize and erase on a device; returns floats `[batch, channels, resolution, resolution]`."""
    pixels, flipped, kept = (of.to(device, non_blocking=True) for of in (crops.pixels, crops.flipped, crops.kept))
    parts = torch.split(pixels, [shape.numel() for shape in crops.shapes])
    size = list(kept.shape[-2:])
    resized = [
        transforms.resize(part.view(shape).permute(2, 0, 1), size, antialias=True)
        for part, shape in zip(parts, crops.shapes, strict=True)
    ]
    batch = torch.stack(resized).contiguous(memory_format=torch.channels_last)
    return normalize(torch.where(flipped, batch.flip(-1), batch)) * kept
