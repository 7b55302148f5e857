"""From an image as it is stored to the picture that networks see, before any resizing."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ofa.core.errors import DataError, OfaError, one_line
from ofa.core.pictures import WHITE, Color, upright_opaque

Side = Callable[[Image.Image], int]
"""The shorter side in pixels that is needed of a picture, which may not be decoded yet."""
_ARRAY_CHANNELS = (1, 3, 4)
_NO_PICTURES = {"BUFR", "EPS", "FITS", "GRIB", "HDF5", "MPEG", "WMF"}
"""Formats that Pillow opens, but reads only with another program, or not at all."""


@dataclass(frozen=True)
class Decoder:
    """Turns images into PIL images of one kind: gray or RGB.

    The orientation that a camera noted in EXIF is applied, transparency is blended onto the background, and gray and
    color are converted to what the network takes. Of several frames the first is taken.

    Attributes:
        in_channels: 1 for gray, 3 for color.
        background: what transparent parts are blended onto.
    """

    in_channels: int = 3
    background: Color = WHITE

    def file(self, path: str | Path, side: Side | None = None) -> Image.Image:
        """Decode an image file, where `side` is given at a reduced scale; DataError if it cannot be read."""
        with reading(path), Image.open(path) as image:
            return self.picture(image, side)

    def encoded(self, content: bytes, name: str, side: Side | None = None) -> Image.Image:
        """Decode the bytes of an image file, called `name` in errors, like `file`."""
        with reading(name), Image.open(BytesIO(content)) as image:
            return self.picture(image, side)

    def picture(self, image: Image.Image, side: Side | None = None) -> Image.Image:
        """Convert any PIL image; raises what Pillow does, and ValueError for more than 8 bits per channel.

        A JPEG file that is not decoded yet is decoded at 1/2, 1/4 or 1/8 of its size where `side` is given: at the
        smallest of them that leaves its shorter side at what `side` says or above, in a fraction of the time.
        """
        if image.mode[0] in "IF":
            raise ValueError(f"its mode is {image.mode}; scale it to 8 bits per channel")
        if side is not None:
            shorter = side(image)
            image.draft(None, (shorter, shorter))  # the mode stays
        return upright_opaque(image, self.in_channels, self.background)

    def array(self, pixels: Any) -> Image.Image:
        """Convert uint8 values `[h, w]`, `[h, w, c]` or `[c, h, w]`, with c of 1, 3 or 4; ValueError for others."""
        values = np.asarray(pixels)
        if values.dtype != np.uint8:
            raise ValueError(f"its values are {values.dtype}; scale them to uint8, from 0 to 255")
        if values.ndim == 3 and values.shape[2] not in _ARRAY_CHANNELS and values.shape[0] in _ARRAY_CHANNELS:
            values = values.transpose(1, 2, 0)
        if (
            not values.size
            or values.ndim not in (2, 3)
            or (values.ndim == 3 and values.shape[2] not in _ARRAY_CHANNELS)
        ):
            raise ValueError(f"its shape is {list(values.shape)}; give [h, w], [h, w, c] or [c, h, w], c of 1, 3 or 4")
        if values.ndim == 3 and values.shape[2] == 1:
            values = values[:, :, 0]
        return self.picture(Image.fromarray(np.ascontiguousarray(values)))


def pixels_of(picture: Image.Image) -> Tensor:
    """Return a gray or RGB picture as uint8 `[channels, height, width]`."""
    pixels = np.array(picture)
    return torch.from_numpy(pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1).copy())


def picture_of(pixels: Tensor) -> Image.Image:
    """Return uint8 `[channels, height, width]`, of 1 or 3 channels, as a gray or RGB picture."""
    values = pixels.permute(1, 2, 0).numpy()
    return Image.fromarray(values[:, :, 0] if len(pixels) == 1 else values)


@contextmanager
def reading(name: str | Path) -> Iterator[None]:
    """Turn whatever Pillow raises while it reads an image into a DataError that names it."""
    try:
        yield
    except OfaError:
        raise
    except Exception as error:  # decoders raise errors of many kinds, such as RuntimeError for AVIF
        raise DataError(f"cannot read the image {name} ({one_line(error)}); repair or remove it") from error


@cache
def image_suffixes() -> frozenset[str]:
    """Return the suffixes of the image files that Pillow reads, such as `.jpg`, in lower case."""
    formats = Image.registered_extensions()  # imports all of Pillow's formats
    return frozenset(suffix for suffix, name in formats.items() if name in Image.OPEN and name not in _NO_PICTURES)
