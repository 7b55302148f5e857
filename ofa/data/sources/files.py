"""Image files as a store, for all sources whose images are files of their own."""

import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from ofa.core.errors import DataError
from ofa.data.decode import Decoder, reading
from ofa.data.images import Positions, short_hash

_EDGE_BYTES = 4096
"""Bytes at both ends of a file by which it is told apart."""
_THREADS = 8
_SHOWN = 20
"""Broken files that an error names."""


@dataclass(frozen=True, repr=False)
class FileStore:
    """Image files under a folder, read on access. Their names are one array: a list takes several times the memory.

    Attributes:
        root: the folder that the names are relative to.
        names: all names, one after another, as bytes.
        ends: where each name ends.
        decoder: what turns a file into pixels.
    """

    root: Path
    names: NDArray[np.uint8]
    ends: NDArray[np.int64]
    decoder: Decoder

    @classmethod
    def of(cls, root: Path, names: Iterable[str | Path], decoder: Decoder) -> "FileStore":
        """Return the store of files by name; DataError that names those whose beginning is no image."""
        encoded = [os.fsencode(name) for name in names]
        ends = np.cumsum([len(name) for name in encoded], dtype=np.int64)
        store = cls(root, np.frombuffer(b"".join(encoded), np.uint8), ends, decoder)
        store._check()
        return store

    def __repr__(self) -> str:
        return f"files in {self.root}"

    def path(self, position: int) -> Path:
        """Return the path of a file."""
        start = self.ends[position - 1] if position else 0
        return self.root / os.fsdecode(self.names[start : self.ends[position]].tobytes())

    def name(self, position: int) -> str:
        """See `Store.name`."""
        return str(self.path(position))

    def read(self, position: int) -> Tensor:
        """See `Store.read`."""
        return self.decoder.file(self.path(position))

    def fingerprints(self, positions: Positions) -> NDArray[np.uint64]:
        """See `Store.fingerprints`. They tell sizes and both ends of files: whole files take long to read."""
        with ThreadPoolExecutor(_THREADS) as pool:
            return np.fromiter(pool.map(edge_hash, map(self.path, positions.tolist())), np.uint64, len(positions))

    def _check(self) -> None:
        with ThreadPoolExecutor(_THREADS) as pool:
            problems = [problem for problem in pool.map(self._problem, range(len(self.ends))) if problem]
        if len(problems) == 1:
            raise DataError(f"cannot read the image {problems[0]}; repair or remove it")
        if problems:
            more = f" and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
            raise DataError(
                f"cannot read {len(problems)} images: {', '.join(problems[:_SHOWN])}{more}; repair or remove them"
            )

    def _problem(self, position: int) -> str | None:
        """Return what is wrong with the beginning of a file: cheap, and finds most broken ones before training does."""
        path = self.path(position)
        try:
            with reading(path):
                Image.open(path).close()
        except DataError as error:
            return f"{path} ({error.__cause__})"
        return None


def edge_hash(path: Path, start: int = 0, size: int | None = None) -> int:
    """Return a hash of the size and both ends of a file, or of `size` bytes of it; DataError if it cannot be read."""
    with reading(path), path.open("rb") as file:
        size = file.seek(0, 2) - start if size is None else size
        file.seek(start)
        head = file.read(min(size, _EDGE_BYTES))
        file.seek(start + max(0, size - _EDGE_BYTES))
        tail = file.read(min(size, _EDGE_BYTES))
        return short_hash(f"{size} ".encode() + head + tail)
