"""What was found in large folders, kept in a cache folder until a file or folder that it was read from changes."""

import json
import os
import time
import zipfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import PIL
from numpy.typing import NDArray

from ofa.core.files import cache_folder, parse_json, replacing
from ofa.data.images import short_hash

_FORMAT = 2
_WORTH_KEEPING = 10_000
"""Images from which on a listing is kept; fewer are looked at again in a second."""
_SETTLED_NS = 2 * 10**9
"""Age of the last change from which on the time of a change tells it from the next one, on any file system."""


@dataclass(frozen=True)
class Listing:
    """What a source found.

    Attributes:
        facts: what JSON can hold, such as the names of the classes.
        arrays: arrays by split and name, such as `train.labels`, a label for each image.
        read: paths of files and folders; the listing holds as long as their sizes and times of change do.
        notes: what a user may not expect, as sentences.
    """

    facts: dict[str, Any]
    arrays: dict[str, NDArray[Any]]
    read: list[str]
    notes: list[str] = field(default_factory=list)

    @property
    def splits(self) -> dict[str, dict[str, NDArray[Any]]]:
        """The arrays by split, and in each by name."""
        by_split: dict[str, dict[str, NDArray[Any]]] = {}
        for key, array in self.arrays.items():
            split, _, name = key.partition(".")
            by_split.setdefault(split, {})[name] = array
        return by_split


def by_split(splits: Mapping[str, Mapping[str, NDArray[Any]]]) -> dict[str, NDArray[Any]]:
    """Return arrays by split and name as a listing has them."""
    return {f"{split}.{name}": array for split, arrays in splits.items() for name, array in arrays.items()}


def kept(what: str, make: Callable[[], Listing]) -> Listing:
    """Return a listing: the one that was kept under a name if it still holds, otherwise a new one, which is then kept.

    Small ones are not kept. One that cannot be written is used all the same, and a note says so.
    """
    file = index_file(what)
    listing = _read(file)
    if listing is not None:
        return listing
    start = time.time_ns()
    listing = make()
    if sum(len(arrays["labels"]) for arrays in listing.splits.values()) < _WORTH_KEEPING:
        return listing
    stamps = _stamps(listing.read)
    if stamps is None or stamps[:, 1].max() > start - _SETTLED_NS:
        return listing  # it changes while it is read
    try:
        _write(file, listing, stamps)
    except OSError as error:
        advice = f"the list of images cannot be kept in {file} ({error}); every start looks at all files again"
        return replace(listing, notes=[*listing.notes, advice])
    return listing


def forget() -> None:
    """Remove all listings that are kept."""
    for file in cache_folder().glob("index-*.npz"):
        file.unlink(missing_ok=True)


def index_file(what: str) -> Path:
    """Return the file for a listing, in `cache_folder`."""
    return cache_folder() / f"index-{short_hash(f'{_FORMAT} {PIL.__version__} {what}'.encode()):016x}.npz"


def _stamps(paths: list[str]) -> NDArray[np.int64] | None:
    """Return sizes and times of change in ns `[n, 2]`; None if a path is missing."""
    try:
        stats = [os.stat(path) for path in paths]
    except OSError:
        return None
    return np.array([(stat.st_size, stat.st_mtime_ns) for stat in stats], dtype=np.int64)


def _write(file: Path, listing: Listing, stamps: NDArray[np.int64]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    texts = json.dumps([listing.facts, listing.read, listing.notes]).encode()
    arrays: dict[str, Any] = {"_texts": np.frombuffer(texts, np.uint8), "_stamps": stamps, **listing.arrays}
    with replacing(file) as temporary, temporary.open("wb") as stream:
        np.savez(stream, **arrays, allow_pickle=False)


def _read(file: Path) -> Listing | None:
    """Return the listing in a file; None if there is none, it cannot be read, or something changed since."""
    try:
        with file.open("rb") as stream, np.load(stream, allow_pickle=False) as content:
            arrays = {name: content[name] for name in content.files}
        facts, read, notes = parse_json(arrays.pop("_texts").tobytes())
        stamps = arrays.pop("_stamps")
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error):
        return None
    now = _stamps(read)
    return Listing(facts, arrays, read, notes) if now is not None and np.array_equal(now, stamps) else None
