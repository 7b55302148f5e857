"""Window partition of feature maps of any size for attention, with shifted windows as in Swin (arXiv 2103.14030)."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Ints = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Partition:
    """Index tensors that split the tokens of a map, in row-major order, into windows of equal size.

    Attributes:
        windows: number of windows.
        tokens: number of tokens per window, padding included.
        position: `[tokens]`; `position[i] - position[j]` is the row of a flattened bias table for tokens i and j,
            counted from the table's center.
        order: `[windows * tokens]`, the map's token at each place of the windows; None if that is the map's own order.
        inverse: `[height * width]`, the place of each of the map's tokens; None where `order` is.
        region: `[windows, tokens]`; tokens attend to those of their own region. Tokens that the shift wraps around from
            the opposite edge are a region of their own, and so is padding. None if all are one region.
    """

    windows: int
    tokens: int
    position: Tensor
    order: Tensor | None
    inverse: Tensor | None
    region: Tensor | None


def window_partition(height: int, width: int, window: int, shift: bool, device: torch.device) -> Partition:
    """Partition a map of tokens into as few windows as possible, all of one size of at most `window` by `window`.

    `shift` shifts the windows by half a window, along sides with several windows.
    """
    real = type(torch.empty(0)) is Tensor  # `torch.export` and others have modes that make tensors without values
    return (_cached if real else _cached.__wrapped__)(height, width, window, shift, device)


@lru_cache(maxsize=256)
def _cached(height: int, width: int, window: int, shift: bool, device: torch.device) -> Partition:
    (rows, high, down), (columns, wide, right) = (_split(length, window, shift) for length in (height, width))
    y = np.roll(np.arange(rows * high), -down)  # rows of the map, then of the padding, in the order of the windows
    x = np.roll(np.arange(columns * wide), -right)

    def by_window(grid: Ints) -> Ints:
        return grid.reshape(rows, high, columns, wide).swapaxes(1, 2).reshape(rows * columns, high * wide)

    token = by_window(np.where((y < height)[:, None] & (x < width), np.add.outer(y * width, x), -1)).ravel()
    region = by_window(np.add.outer(3 * _regions(y, height, down), _regions(x, width, right)))
    permuted = len(token) != height * width or (np.diff(token) != 1).any()
    with torch.inference_mode(False):  # the cached tensors may be used in training later
        return Partition(
            windows=rows * columns,
            tokens=high * wide,
            position=_tensor(np.add.outer(np.arange(high) * (2 * window - 1), np.arange(wide)).ravel(), device),
            order=_tensor(token.clip(min=0), device) if permuted else None,  # no token attends to the padding
            inverse=_tensor(token.argsort(kind="stable")[-height * width :], device) if permuted else None,
            region=_tensor(region, device) if (region != region[:, :1]).any() else None,
        )


def _split(length: int, window: int, shift: bool) -> tuple[int, int, int]:
    """Return the number of windows along a side of a map, their size, and their shift."""
    number = -(-length // window)
    size = -(-length // number)
    return number, size, size // 2 if shift and number > 1 else 0


def _regions(line: Ints, length: int, shift: int) -> Ints:
    """Return for each place along a side: 0 inside, 1 if the shift wraps it around the edge, 2 for padding."""
    return np.where(line < shift, 1, np.where(line < length, 0, 2))


def _tensor(values: Ints, device: torch.device) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values)).to(device)
