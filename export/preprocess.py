"""Preprocessing as in training, without torch: resize the shorter side, crop the center, normalize."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from export.errors import check_choice, check_number
from ofa.core.errors import BundleError, DataError
from ofa.core.pictures import WHITE, Color, upright_opaque

Picture = NDArray[np.uint8] | Image.Image
Pictures = NDArray[np.uint8] | Image.Image | Sequence[Picture]
_CHANNELS = (1, 2, 3, 4)  # gray, gray and alpha, RGB, RGBA
_ALLOWED = "give uint8 arrays [h, w], [h, w, 1 to 4], [n, h, w], [n, h, w, 1 to 4], or PIL images of 8 bits"


@dataclass(frozen=True)
class Preprocess:
    """Turn pictures into the input of a model.

    The shorter side of each picture is scaled to `resolution` (bilinear, antialiased) and the center square is
    cropped; then values are divided by 255 and normalized per channel. Pillow's float mode has the filter of
    torchvision's tensors: the two agree to about 1e-5 of full scale.

    A model takes 1 channel, gray, or 3: red, green, blue. `mean` and `std` are per channel, of values from 0 to 1.
    Transparent parts are blended onto the `background`, red, green and blue from 0 to 255.
    """

    resolution: int
    in_channels: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    background: Color = WHITE

    def __post_init__(self) -> None:
        check_number("resolution", self.resolution, 1, 100_000, whole=True, kind=BundleError)
        check_choice("in_channels", self.in_channels, (1, 3), kind=BundleError)
        if not len(self.mean) == len(self.std) == self.in_channels:
            raise BundleError(f"mean {self.mean} and std {self.std} must each have {self.in_channels} values")
        if not all(math.isfinite(value) for value in (*self.mean, *self.std)) or min(self.std) <= 0:
            raise BundleError(f"mean {self.mean} and std {self.std} must be finite, std above 0")
        for value in self.background:
            check_number("background", value, 0, 255, whole=True, kind=BundleError)

    def __call__(self, pictures: Pictures) -> NDArray[np.float32]:
        """Return the model's input `[n, in_channels, resolution, resolution]`.

        | `pictures` | meaning |
        | --- | --- |
        | uint8 array `[h, w]` | one gray picture |
        | uint8 array `[h, w, c]`, `c` from 1 to 4 | one picture: gray, gray and alpha, RGB, RGBA |
        | uint8 array `[n, h, w]`, `w` above 4 | `n` gray pictures |
        | uint8 array `[n, h, w, c]`, `c` from 1 to 4 | `n` pictures |
        | PIL image with 8 bits per channel | one picture, in any such mode |
        | list or tuple | single pictures as above, of any sizes |

        Transparent parts are blended onto the background, a PIL image is turned as its EXIF orientation says, and gray
        and color are converted to what the model takes: all as in training. Anything else is a DataError.
        """
        if isinstance(pictures, np.ndarray):
            several = pictures.ndim == 4 or (pictures.ndim == 3 and pictures.shape[2] not in _CHANNELS)
        else:
            several = isinstance(pictures, list | tuple)
        singles: Sequence[Any] = pictures if several else [pictures]  # type: ignore[assignment]  # iterates the array
        if not len(singles):
            raise DataError("no pictures; give at least one")
        batch = np.stack([self._resize(self._pixels(picture)) for picture in singles])
        mean, std = (np.array(values, dtype=np.float32)[:, None, None] for values in (self.mean, self.std))
        return np.ascontiguousarray((batch.transpose(0, 3, 1, 2) / np.float32(255) - mean) / std)

    def _pixels(self, picture: Any) -> NDArray[np.uint8]:
        """Return one picture as uint8 `[h, w, in_channels]`."""
        image = _image(picture)
        try:
            pixels = np.asarray(upright_opaque(image, self.in_channels, self.background))
        except Exception as error:  # of a broken file, which may be read only now, decoders raise errors of many kinds
            raise DataError(f"a PIL image of mode {image.mode!r} ({error}); convert it to RGB first") from error
        return pixels.reshape(*pixels.shape[:2], self.in_channels)

    def _resize(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the center `[resolution, resolution, channels]` of one picture, resized in float without rounding."""
        side, (height, width) = self.resolution, pixels.shape[:2]
        short = min(height, width)
        new_height, new_width = (int(side * length / short) for length in (height, width))
        image = pixels.astype(np.float32)
        if (new_height, new_width) != (height, width):
            planes = (Image.fromarray(np.ascontiguousarray(plane)) for plane in image.transpose(2, 0, 1))
            size = (new_width, new_height)
            image = np.stack([np.asarray(p.resize(size, Image.Resampling.BILINEAR)) for p in planes], axis=2)
        top, left = round((new_height - side) / 2), round((new_width - side) / 2)
        return image[top : top + side, left : left + side]


def _image(picture: Any) -> Image.Image:
    """Return one picture as a PIL image."""
    kind = f"type {type(picture).__name__}"
    if isinstance(picture, Image.Image):
        if picture.mode[0] not in "IF" and 0 not in picture.size:
            return picture
        kind = f"mode {picture.mode!r} and size {picture.size}"
    elif isinstance(picture, np.ndarray):
        if picture.dtype == np.uint8 and picture.size and picture.ndim == 2:
            return Image.fromarray(np.ascontiguousarray(picture))
        if picture.dtype == np.uint8 and picture.size and picture.ndim == 3 and picture.shape[2] in _CHANNELS:
            return Image.fromarray(np.ascontiguousarray(picture[:, :, 0] if picture.shape[2] == 1 else picture))
        kind = f"{picture.dtype} {list(picture.shape)}"
    raise DataError(f"a picture of {kind} is not allowed; {_ALLOWED}")
