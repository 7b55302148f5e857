"""Find what the weights of several ONNX files have in common, and store it once."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from math import gcd, prod
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from export.shared_weights import Cut, pack

_SMALLEST_BYTES = 64  # smaller tensors stay in the graph
_MAX_GROUPS = 64

Array = NDArray[Any]
Region = tuple[slice, ...]


@dataclass(frozen=True)
class _Tensor:
    """An initializer of an ONNX file: the position of its bytes there, and its values as unsigned integers."""

    start: int
    values: Array


def share(models: Sequence[bytes]) -> tuple[bytes, list[bytes]]:
    """Return a file of tensors, and for each ONNX file the packed model (`export.shared_weights`) that refers to it.

    Initializers of one name are shared where they agree bit by bit as parts of one tensor, by the rules of
    `ofa.supernet.rules`: each dimension is a leading slice or the center, possibly in each of several equal groups of
    rows. The tensor that is stored is the smallest box that holds all of them. What does not agree is stored for each
    model.
    """
    by_model = [_tensors(model) for model in models]
    kinds = dict.fromkeys((name, _kind(tensor)) for tensors in by_model for name, tensor in tensors.items())
    stored: list[bytes] = []
    cuts: list[list[tuple[_Tensor, Cut]]] = [[] for _ in models]
    n_bytes = 0
    for name, kind in kinds:
        owners = {i: t[name] for i, t in enumerate(by_model) if name in t and _kind(t[name]) == kind}
        for box, regions in _boxes({i: tensor.values for i, tensor in owners.items()}):
            for i, region in regions.items():
                cuts[i].append((owners[i], _cut(n_bytes, box, region)))
            stored.append(box.tobytes())
            n_bytes += box.nbytes
    return b"".join(stored), [pack(_pieces(*pair)) for pair in zip(models, cuts, strict=True)]


def _tensors(model: bytes) -> dict[str, _Tensor]:
    """Return the initializers by name whose bytes stand in the file as they are, the small ones left out."""
    tensors: dict[str, _Tensor] = {}
    position = 0
    try:
        initializers = onnx.load_model_from_string(model).graph.initializer
    except DecodeError:  # of another format: all of it is graph
        return tensors
    for initializer in initializers:
        raw, dims = initializer.raw_data, tuple(initializer.dims)
        start = model.find(raw, position) if len(raw) >= _SMALLEST_BYTES else -1
        item_bytes = len(raw) // max(1, prod(dims))
        if start >= 0 and item_bytes in (1, 2, 4, 8) and item_bytes * prod(dims) == len(raw):
            tensors[initializer.name] = _Tensor(start, np.frombuffer(raw, f"u{item_bytes}").reshape(dims))
            position = start + len(raw)
    return tensors


def _kind(tensor: _Tensor) -> tuple[np.dtype[Any], int]:
    return tensor.values.dtype, tensor.values.ndim


def _boxes(arrays: Mapping[int, Array]) -> Iterator[tuple[Array, dict[int, Region]]]:
    """Yield arrays to store, each with the regions that are the `arrays` of some keys; every key comes once."""
    left = dict(arrays)
    while left:
        box, regions = _largest_agreement(left)
        if box.nbytes >= sum(left[key].nbytes for key in regions):  # sharing would not save anything
            key = next(iter(regions))
            box, regions = left[key], {key: tuple(slice(0, size) for size in left[key].shape)}
        yield box, regions
        left = {key: array for key, array in left.items() if key not in regions}


def _largest_agreement(arrays: Mapping[int, Array]) -> tuple[Array, dict[int, Region]]:
    """Return the box of the layout in which the most arrays agree, with the region of each."""
    best: tuple[Array, dict[int, Region]] | None = None
    for groups in _group_counts([array.shape[0] for array in arrays.values()]):
        grouped = arrays if groups == 1 else {key: a.reshape(groups, -1, *a.shape[1:]) for key, a in arrays.items()}
        different = [len(set(sizes)) > 1 for sizes in zip(*(a.shape for a in grouped.values()), strict=True)]
        for centered in product(*((False, True) if differs else (False,) for differs in different)):
            box, regions = _overlay(grouped, centered)
            if best is None or len(regions) > len(best[1]):
                best = box, regions
            if len(regions) == len(arrays):
                return best
    assert best is not None  # as one group is always tried
    return best


def _group_counts(n_rows: Sequence[int]) -> list[int]:
    """Return the numbers of equal groups that rows may form, ascending."""
    if len(set(n_rows)) == 1:
        return [1]
    return [groups for groups in range(1, _MAX_GROUPS + 1) if gcd(*n_rows) % groups == 0]


def _overlay(arrays: Mapping[int, Array], centered: Sequence[bool]) -> tuple[Array, dict[int, Region]]:
    """Lay arrays over each other, the largest first, and leave out what disagrees with those before.

    Returns:
        The smallest box around them, zero where no array is, and the region of each array in it.
    """
    frame = np.max([array.shape for array in arrays.values()], axis=0)
    box, filled = np.zeros(frame, next(iter(arrays.values())).dtype), np.zeros(frame, bool)
    regions: dict[int, Region] = {}
    for key, array in sorted(arrays.items(), key=lambda item: -item[1].size):
        starts = np.where(centered, (frame - array.shape) // 2, 0)
        region = tuple(slice(int(a), int(a) + n) for a, n in zip(starts, array.shape, strict=True))
        if not (filled[region] & (box[region] != array)).any():
            box[region], filled[region], regions[key] = array, True, region
    low = [min(part.start for part in parts) for parts in zip(*regions.values(), strict=True)]
    high = [max(part.stop for part in parts) for parts in zip(*regions.values(), strict=True)]
    inner = tuple(map(slice, low, high))
    moved = {
        key: tuple(slice(part.start - a, part.stop - a) for part, a in zip(region, low, strict=True))
        for key, region in regions.items()
    }
    return np.ascontiguousarray(box[inner]), moved


def _cut(start: int, box: Array, region: Region) -> Cut:
    """Return the cut that is a region of a box whose bytes begin at `start`, in as few dimensions as possible."""
    offset = start + sum(part.start * stride for part, stride in zip(region, box.strides, strict=True))
    sizes, strides = [box.itemsize], [1]
    for part, stride in zip(reversed(region), reversed(box.strides), strict=True):
        size = part.stop - part.start
        if stride == sizes[0] * strides[0]:
            sizes[0] *= size
        elif size > 1:
            sizes, strides = [size, *sizes], [stride, *strides]
    return Cut(offset, tuple(sizes), tuple(strides))


def _pieces(model: bytes, cuts: Sequence[tuple[_Tensor, Cut]]) -> list[bytes | Cut]:
    """Return the bytes of a model with those of its tensors replaced by cuts."""
    pieces: list[bytes | Cut] = []
    position = 0
    for tensor, cut in sorted(cuts, key=lambda pair: pair[0].start):
        pieces += [model[position : tensor.start], cut]
        position = tensor.start + tensor.values.nbytes
    return [piece for piece in (*pieces, model[position:]) if piece != b""]
