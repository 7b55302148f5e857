"""Models that store their tensors in one file: a compressed graph, and cuts of the tensors; see `docs/bundle.md`."""

import json
import zlib
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ofa.core.errors import BundleError
from ofa.core.files import parse_json

MAX_GRAPH_BYTES = 2**26
"""Largest graph of one model, uncompressed; those of the families here have 15 to 400 kB."""
_MAX_INDEX_BYTES = 2**20


@dataclass(frozen=True)
class Cut:
    """A strided part of the file of tensors.

    Attributes:
        offset: of the first byte.
        sizes: number of bytes along the last dimension, and of steps along the others.
        strides: bytes from one step to the next, 1 along the last dimension.
    """

    offset: int
    sizes: tuple[int, ...]
    strides: tuple[int, ...]


def pack(pieces: Sequence[bytes | Cut]) -> bytes:
    """Return the file of a model whose bytes are those of `pieces`, one after the other.

    It is one zlib stream of a line of JSON, which lists the pieces (of bytes their number, of a cut its fields), and of
    the bytes. A graph above `MAX_GRAPH_BYTES` is a BundleError.
    """
    index = [len(piece) if isinstance(piece, bytes) else astuple(piece) for piece in pieces]
    graph = b"".join(piece for piece in pieces if isinstance(piece, bytes))
    content = json.dumps(index, separators=(",", ":")).encode() + b"\n" + graph
    if len(content) > MAX_GRAPH_BYTES:
        raise BundleError(f"a graph of {len(content)} bytes is too large to share weights; write a bundle without")
    return zlib.compress(content, level=9)


def assemble(packed: bytes, tensors: NDArray[np.uint8]) -> bytes:
    """Return the bytes of a packed model, given the file of tensors; BundleError if it is malformed.

    Every piece is checked before memory for the model is allocated: it never takes more than the two files, and
    `MAX_GRAPH_BYTES` once for the graph.
    """
    index, graph = _unpack(packed)
    pieces: list[NDArray[np.uint8]] = []
    for entry in index:
        if type(entry) is not int:
            pieces.append(_cut(entry, tensors))
        elif 0 < entry <= len(graph):
            pieces.append(graph[:entry])
            graph = graph[entry:]
        else:
            raise BundleError(f"a piece of {entry} bytes is not in the graph, of which {len(graph)} are left")
    n_bytes = sum(piece.nbytes for piece in pieces)
    if len(graph):
        raise BundleError(f"{len(graph)} bytes of the graph are not in the list of pieces")
    if n_bytes > len(tensors) + MAX_GRAPH_BYTES:
        raise BundleError(f"a model of {n_bytes} bytes is larger than the {len(tensors)} bytes of tensors and a graph")
    model = BytesIO()
    for piece in pieces:
        model.write(piece.tobytes())
    return model.getvalue()


def _unpack(packed: bytes) -> tuple[list[Any], NDArray[np.uint8]]:
    """Return the list of pieces and the graph."""
    stream = zlib.decompressobj()
    try:
        content = stream.decompress(packed, MAX_GRAPH_BYTES)
        line = content.find(b"\n", 0, _MAX_INDEX_BYTES)
        if not stream.eof or stream.unused_data or line < 0:
            raise ValueError(f"truncated, larger than {MAX_GRAPH_BYTES} bytes, without a list, or with other data")
        index = parse_json(content[:line])
    except (zlib.error, ValueError) as error:
        raise BundleError(f"the graph cannot be unpacked: {error}") from error
    if not isinstance(index, list):
        raise BundleError(f"the graph begins with a {type(index).__name__} instead of a list of pieces")
    return index, np.frombuffer(content, np.uint8)[line + 1 :]


def _cut(entry: Any, tensors: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the part of the tensors that an entry of the index says, as a view."""
    try:
        offset, sizes, strides = entry
        end = offset + sum((size - 1) * stride for size, stride in zip(sizes, strides, strict=True))
        numbers = (offset, *sizes, *strides)
        if not all(type(number) is int for number in numbers) or offset < 0 or min(numbers[1:]) < 1:
            raise ValueError("offset, sizes and strides must be whole numbers above 0")
        if end >= len(tensors):
            raise ValueError(f"its last byte is {end}, the tensors have {len(tensors)}")
        return np.ndarray(tuple(sizes), np.uint8, tensors, offset, tuple(strides))
    except (TypeError, ValueError, OverflowError) as error:
        raise BundleError(f"the cut {entry!r:.80} is not in the tensors: {error}") from error
