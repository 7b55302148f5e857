"""A sheet of pictures: some classes of a data set, as the runtime and as training see them."""

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from ofa.data.config import AugmentConfig
from ofa.data.dataset import Data
from ofa.data.decode import picture_of, pixels_of
from ofa.data.device_augment import Crop
from ofa.data.images import evenly
from ofa.data.loaders import AugmentedImages
from ofa.data.transforms import resize_center_crop

_CLASSES, _SEEN, _AUGMENTED = 10, 3, 5
_SIDE, _GAP, _LINE = 96, 6, 16
"""Pixels of a picture's side, between pictures, and of a line of text."""


def sheet(data: Data, augment: AugmentConfig, resolution: int, seed: int = 0) -> Image.Image:
    """Return a sheet with a row for each of up to 10 classes, spread evenly.

    The first three pictures of a row are training images as the runtime sees them at a resolution; the next five are
    the first of these as training sees it in five epochs.
    """
    labels = data.train.labels.numpy()
    present = np.unique(labels)
    shown = present[evenly(len(present), _CLASSES)]
    width = _GAP + (_SEEN + _AUGMENTED + 1) * (_SIDE + _GAP)
    image = Image.new("RGB", (width, _GAP + _LINE + len(shown) * (_SIDE + _LINE + _GAP)), "white")
    draw = ImageDraw.Draw(image)
    left = _GAP + (_SEEN + 1) * (_SIDE + _GAP)
    draw.text((_GAP, _GAP // 2), f"as the runtime sees them, {resolution} pixels", "black")
    draw.text((left, _GAP // 2), "the first one, as training sees it", "black")
    augmented = AugmentedImages(data, augment.model_copy(update={"on_device": False}), seed)
    for row, label in enumerate(shown.tolist()):
        top = _GAP + _LINE + row * (_SIDE + _LINE + _GAP)
        draw.text((_GAP, top), data.labels[label], "black")
        positions = np.flatnonzero(labels == label)[:_SEEN].tolist()
        for column, position in enumerate(positions):
            seen = resize_center_crop(data.train[position][0].float(), resolution)
            image.paste(_picture(seen), (_GAP + column * (_SIDE + _GAP), top + _LINE))
        for epoch in range(_AUGMENTED):
            ((drawn, _),) = augmented.__getitems__([(epoch, positions[0], resolution)])
            assert not isinstance(drawn, Crop)
            pixels = _denormalized(data, drawn) if isinstance(drawn, Tensor) else pixels_of(drawn)
            image.paste(_picture(pixels), (left + epoch * (_SIDE + _GAP), top + _LINE))
    return image


def _denormalized(data: Data, image: Tensor) -> Tensor:
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (data.mean, data.std))
    return (image * std + mean) * 255


def _picture(image: Tensor) -> Image.Image:
    """Return pixels `[channels, h, w]` from 0 to 255 as a picture of the sheet's size, each pixel a square."""
    picture = picture_of(image.float().round().clamp(0, 255).to(torch.uint8)).convert("RGB")
    nearest = picture.width < _SIDE
    return picture.resize((_SIDE, _SIDE), Image.Resampling.NEAREST if nearest else Image.Resampling.LANCZOS)
