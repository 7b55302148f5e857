"""From an image to a model's input, as the engine does it with torchvision, but without torch.

Per image: the shorter side to `resolution` (bilinear, antialiased), the center square, values / 255,
then (x - mean) / std per channel. Pillow's float mode has the filter of torchvision's tensors, so that the
two agree to about 1e-5 of the full scale.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ofa.core.errors import BundleError, DataError

Picture = NDArray[np.uint8] | Image.Image
Pictures = NDArray[np.uint8] | Image.Image | Sequence[Picture]
_DEEPER_THAN_8_BIT = ("I", "F", "I;16", "I;16L", "I;16B", "I;16N")


@dataclass(frozen=True)
class Preprocess:
    """What is done to images before a model sees them.

    Attributes:
        resolution: height and width of the model's input in pixels.
        in_channels: of the model; 1 is gray, 3 is red, green, blue.
        mean: per channel, of values from 0 to 1.
        std: per channel, of values from 0 to 1.
    """

    resolution: int
    in_channels: int
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self) -> None:
        if self.resolution < 1 or self.in_channels < 1:
            raise BundleError(
                f"resolution = {self.resolution} and in_channels = {self.in_channels} must both be at least 1"
            )
        if not len(self.mean) == len(self.std) == self.in_channels:
            raise BundleError(
                f"mean {self.mean} and std {self.std} must have one value for each of {self.in_channels} channels"
            )
        if not all(math.isfinite(m) for m in self.mean) or not all(math.isfinite(s) and s > 0 for s in self.std):
            raise BundleError(f"mean {self.mean} must be finite, std {self.std} finite and above 0")

    def to_dict(self) -> dict[str, Any]:
        """JSON values that `from_dict` reads."""
        return asdict(self) | {"mean": list(self.mean), "std": list(self.std)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Preprocess:
        """What `to_dict` wrote.

        Raises:
            BundleError: a key is missing, unknown, or holds something else.
        """
        wanted = {field.name for field in fields(cls)}
        if set(values) != wanted:
            raise BundleError(f"preprocess has the keys {sorted(values)}; it must have {sorted(wanted)}")
        try:
            mean, std = (tuple(float(v) for v in values[name]) for name in ("mean", "std"))
            return cls(int(values["resolution"]), int(values["in_channels"]), mean, std)
        except (TypeError, ValueError) as error:
            raise BundleError(f"preprocess {dict(values)} must hold numbers and lists of numbers: {error}") from error

    def __call__(self, images: Pictures) -> NDArray[np.float32]:
        """The model's input `[n, in_channels, resolution, resolution]`.

        Args:
            images: uint8 `[n, h, w]` or `[n, h, w, channels]`; one image `[h, w]` or `[h, w, channels]`;
                one PIL image; or a sequence of single images of any sizes. Gray and color are
                converted to what the model takes.

        Raises:
            DataError: no image, not uint8, or a number of channels that cannot be converted.
        """
        batch = np.stack([self._resized(self._channels(image)) for image in self._single(images)])
        mean, std = (np.array(values, dtype=np.float32)[:, None, None] for values in (self.mean, self.std))
        return np.ascontiguousarray((batch.transpose(0, 3, 1, 2) / np.float32(255) - mean) / std)

    def _single(self, images: Pictures) -> Sequence[Picture]:
        if isinstance(images, Image.Image):
            return [images]
        if isinstance(images, np.ndarray):
            one_color = images.ndim == 3 and images.shape[2] in (1, 3, self.in_channels)
            if images.ndim == 2 or one_color:
                return [images]
            if images.ndim not in (3, 4):
                raise DataError(f"images of shape {images.shape}; give [n, h, w], [n, h, w, channels] or one image")
        if len(images) == 0:
            raise DataError("no images; give at least one")
        return images  # type: ignore[return-value]  # iterating an array gives its images

    def _channels(self, image: Picture) -> NDArray[np.uint8]:
        """One image as uint8 `[h, w, in_channels]`."""
        mode = {1: "L", 3: "RGB"}.get(self.in_channels)
        if isinstance(image, Image.Image):
            if image.mode in _DEEPER_THAN_8_BIT:
                raise DataError(f"a PIL image of mode {image.mode!r}; scale it to 8 bits per channel first")
            image = np.asarray(image.convert(mode) if mode else image)
        if not isinstance(image, np.ndarray) or image.dtype != np.uint8:
            kind = image.dtype if isinstance(image, np.ndarray) else type(image).__name__
            raise DataError(f"an image of {kind}; give uint8 arrays with values from 0 to 255, or PIL images")
        pixels = image[:, :, None] if image.ndim == 2 else image
        if pixels.ndim != 3 or 0 in pixels.shape:
            raise DataError(f"an image of shape {image.shape}; give [h, w] or [h, w, channels], not empty")
        if pixels.shape[2] == self.in_channels:
            return pixels
        if pixels.shape[2] == 1 and mode == "RGB":
            return np.repeat(pixels, 3, axis=2)
        if pixels.shape[2] == 3 and mode == "L":
            return np.asarray(Image.fromarray(np.ascontiguousarray(pixels)).convert("L"))[:, :, None]
        raise DataError(f"an image of {pixels.shape[2]} channels; this model takes {self.in_channels}")

    def _resized(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """The center `[resolution, resolution, channels]` of one image, resized in float without rounding."""
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
