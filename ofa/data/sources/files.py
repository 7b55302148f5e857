"""Image files as a store, for all sources whose images are files of their own."""

import os
import time
from array import array
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from ofa.core.errors import DataError
from ofa.data.decode import Decoder, Side, reading
from ofa.data.images import Positions, evenly, short_hash

_EDGE_BYTES = 4096
"""Bytes at both ends of a file by which it is told apart."""
_THREADS, _CHUNK = 16, 1000
_READ_ONLY = os.O_RDONLY | getattr(os, "O_BINARY", 0)
_SHOWN = 20
"""Broken files that an error names."""
_LOOKED_AT_AGAIN = 1000
"""Files by whose sizes and times of change a later start sees that files were changed where they lie."""
_WHOLE = {b"\xff\xd8\xff": b"\xff\xd9", b"\x89PNG\r\n\x1a\n": b"IEND\xaeB`\x82"}
"""How whole files of JPEG and PNG begin, and what is near their end."""


@dataclass(frozen=True, repr=False)
class FileStore:
    """Image files under a folder, read on access. Tensors hold what is known of them: workers share their memory.

    Attributes:
        root: the folder that the names are relative to.
        decoder: what turns a file into pixels.
        names: all names, one after another, as bytes.
        ends: where each name ends `[n]`.
        hashes: a number of each file's size and both ends `[n]`, uint64; see `edge_hash`.
    """

    root: Path
    decoder: Decoder
    names: Tensor
    ends: Tensor
    hashes: Tensor

    @classmethod
    def of(cls, root: Path, names: Iterable[str], decoder: Decoder) -> "FileStore":
        """Return the store of files by name; DataError that names those that are no images, or cut short."""
        return cls.listed(root, decoder, list_files(root, names))

    @classmethod
    def listed(cls, root: Path, decoder: Decoder, arrays: dict[str, NDArray[Any]]) -> "FileStore":
        """Return the store of files that `list_files` listed."""
        return cls(root, decoder, *(torch.from_numpy(arrays[name]) for name in ("names", "ends", "hashes")))

    def __repr__(self) -> str:
        return f"files in {self.root}"

    def name(self, position: int) -> str:
        """See `Store.name`. It is the path of the file."""
        return _path(self.root, self.names.numpy(), self.ends.numpy(), position)

    def picture(self, position: int, side: Side | None = None) -> Image.Image:
        """See `Store.picture`."""
        return self.decoder.file(self.name(position), side)

    def fingerprints(self, positions: Positions) -> NDArray[np.uint64]:
        """See `Store.fingerprints`. They tell sizes and both ends of files: whole files take long to read."""
        hashes: NDArray[np.uint64] = self.hashes.numpy()[positions]
        return hashes


def list_files(root: Path, names: Iterable[str]) -> dict[str, NDArray[Any]]:
    """Return arrays of files by name: what `FileStore` calls `names`, `ends` and `hashes`.

    Both ends of each file are read: cheap, and it finds most broken ones before a training does. All that are no
    images, or cut short, are named in one DataError.
    """
    characters, ends = bytearray(), array("q")  # a list of texts would take several times the memory
    for name in names:
        characters += os.fsencode(name)
        ends.append(len(characters))
    n, all_names, all_ends = len(ends), np.frombuffer(characters, np.uint8), np.array(ends, np.int64)

    def look(start: int) -> tuple[list[int], list[str]]:
        hashes, problems = [], []
        for position in range(start, min(start + _CHUNK, n)):
            try:
                hashes.append(_checked_hash(_path(root, all_names, all_ends, position)))
            except DataError as error:
                problems.append(str(error).removeprefix("cannot read the image ").partition("; repair")[0])
        return hashes, problems

    wall, processor = time.perf_counter(), time.thread_time()
    looked = [look(0)]
    waits = time.perf_counter() - wall > 2 * (time.thread_time() - processor)
    with ThreadPoolExecutor(_THREADS if waits else 1) as pool:  # with nothing to wait for, threads wait for each other
        looked += pool.map(look, range(_CHUNK, n, _CHUNK))
    problems = [problem for _, of_chunk in looked for problem in of_chunk]
    if len(problems) == 1:
        raise DataError(f"cannot read the image {problems[0]}; repair or remove it")
    if problems:
        more = f" and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
        raise DataError(
            f"cannot read {len(problems)} images: {', '.join(problems[:_SHOWN])}{more}; repair or remove them"
        )
    all_hashes = np.fromiter(chain(*(hashes for hashes, _ in looked)), np.uint64, n)
    return {"names": all_names, "ends": all_ends, "hashes": all_hashes}


def some_paths(root: Path, arrays: dict[str, NDArray[Any]]) -> list[str]:
    """Return the paths of some of the files that `list_files` listed, evenly spread."""
    names, ends = arrays["names"], arrays["ends"]
    return [_path(root, names, ends, position) for position in evenly(len(ends), _LOOKED_AT_AGAIN).tolist()]


def edge_hash(path: str | Path, start: int = 0, size: int | None = None) -> int:
    """Return a hash of the size and both ends of a file, or of `size` bytes of it; DataError if it cannot be read."""
    return short_hash(b"%d %b%b" % _edges(path, start, size))


def _edges(path: str | Path, start: int = 0, size: int | None = None) -> tuple[int, bytes, bytes]:
    """Return the size of a file, and its first and its last bytes."""
    with reading(path):
        file = os.open(path, _READ_ONLY)  # half the time of a file object, of which there may be a million
        try:
            size = os.fstat(file).st_size - start if size is None else size
            n_bytes = min(size, _EDGE_BYTES)
            head = _read(file, n_bytes, start)
            return size, head, head if n_bytes == size else _read(file, n_bytes, start + size - n_bytes)
        finally:
            os.close(file)


def _read(file: int, n_bytes: int, start: int) -> bytes:
    os.lseek(file, start, os.SEEK_SET)
    return os.read(file, n_bytes)


def _checked_hash(path: str) -> int:
    """Return the hash of a file; DataError if it is no image, or one of JPEG or PNG that is cut short."""
    edges = _edges(path)
    _, head, tail = edges
    if not any(head.startswith(first) and last in tail for first, last in _WHOLE.items()):
        with reading(path), Image.open(path) as image:
            if image.format in ("JPEG", "PNG"):
                image.load()
    return short_hash(b"%d %b%b" % edges)


def _path(root: Path, names: NDArray[np.uint8], ends: NDArray[np.int64], position: int) -> str:
    start = ends[position - 1] if position else 0
    return os.path.join(root, os.fsdecode(names[start : ends[position]].tobytes()))
