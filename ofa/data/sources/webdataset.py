"""Tar shards of images and labels, as webdataset has them: read where they lie, never unpacked."""

import json
import os
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ofa.core.errors import DataError
from ofa.data.config import DataConfig
from ofa.data.dataset import Data
from ofa.data.decode import Decoder, image_suffixes, reading
from ofa.data.images import Positions, short_hash, stored
from ofa.data.sources.files import EDGE_BYTES
from ofa.data.splits import class_names, files_by_split, with_all_splits


@dataclass(frozen=True, repr=False)
class ShardStore:
    """Encoded images in tar files.

    Attributes:
        shards: the files.
        places: shard, first byte and number of bytes of each image `[n, 3]`.
        decoder: what turns an encoded image into pixels.
    """

    shards: tuple[Path, ...]
    places: NDArray[np.int64]
    decoder: Decoder

    def __repr__(self) -> str:
        return f"shards in {self.shards[0].parent}"

    def name(self, position: int) -> str:
        """See `Store.name`."""
        shard, start, _ = self.places[position].tolist()
        return f"at byte {start} of {self.shards[shard]}"

    def read(self, position: int) -> Tensor:
        """See `Store.read`."""
        return self.decoder.encoded(self._bytes(*self.places[position].tolist()), self.name(position))

    def fingerprints(self, positions: Positions) -> NDArray[np.uint64]:
        """See `Store.fingerprints`. They tell sizes and both ends of images: whole ones take long to read."""
        return np.fromiter(map(self._fingerprint, positions.tolist()), np.uint64, len(positions))

    def _fingerprint(self, position: int) -> int:
        shard, start, size = self.places[position].tolist()
        edge = min(size, EDGE_BYTES)
        head, tail = self._bytes(shard, start, edge), self._bytes(shard, start + size - edge, edge)
        return short_hash(f"{size} ".encode() + head + tail)

    def _bytes(self, shard: int, start: int, size: int) -> bytes:
        with reading(self.shards[shard]), self.shards[shard].open("rb") as file:
            file.seek(start)
            return file.read(size)


def webdataset(config: DataConfig, label: str = "cls") -> Data:
    """Load tar shards, in which the files of a sample share a name up to its first dot.

    `data.folder` is a shard, or a folder with shards for each split, such as `train-000.tar`. A sample has one image,
    by its suffix, and a label.

    Args:
        config: the section `data` of the recipe.
        label: the suffix of the labels' files, which hold a class's name or number; or `json:KEY` for a value in a JSON
            object.

    Raises:
        DataError: a shard is missing, compressed or cut short, or a sample has no image, several, or no label.
    """
    root = config.folder
    if root is None or not root.exists():
        raise DataError(f"no file or folder {root}; set data.folder to a tar shard, or to a folder of them")
    decoder, stores = Decoder(config.in_channels, config.background), dict[str, tuple[ShardStore, list[str]]]()
    for split, shards in files_by_split(root, (".tar",)).items():
        samples = [(n, *sample) for n, shard in enumerate(shards) for sample in _samples(shard, label)]
        places = np.array([place for *place, _ in samples], dtype=np.int64).reshape(-1, 3)
        stores[split] = ShardStore(tuple(shards), places, decoder), [text for *_, text in samples]
    classes = class_names(text for _, labels in stores.values() for text in labels)
    label_of = {text: i for i, text in enumerate(classes)}
    splits = {split: stored(store, [label_of[text] for text in labels]) for split, (store, labels) in stores.items()}
    return with_all_splits(root.stem, classes, splits, config)


def _samples(shard: Path, label: str) -> Iterator[tuple[int, int, str]]:
    """Yield the first byte and the size of the image, and the label, of each sample of a shard."""
    suffix, _, key = label.partition(":")
    try:
        with tarfile.open(shard, "r:") as tar:
            name, image, text = "", None, None
            for member in tar:
                if not member.isfile() or os.path.basename(member.name).startswith("."):
                    continue
                if member.offset_data + member.size > shard.stat().st_size:
                    raise tarfile.ReadError("it is cut short")
                folder, _, base = member.name.rpartition("/")
                stem, _, ending = base.partition(".")
                if f"{folder}/{stem}" != name:
                    if name:
                        yield _complete(shard, name, image, text, label)
                    name, image, text = f"{folder}/{stem}", None, None
                if f".{ending.rpartition('.')[2].lower()}" in image_suffixes():
                    if image is not None:
                        raise DataError(f"{shard}: sample {name.lstrip('/')!r} has several images; give it one")
                    image = (member.offset_data, member.size)
                elif ending == suffix:
                    content = tar.extractfile(member).read().decode()  # type: ignore[union-attr]  # it is a file
                    text = str(json.loads(content)[key]) if key else content.strip()
            if name:
                yield _complete(shard, name, image, text, label)
    except (tarfile.TarError, OSError, UnicodeDecodeError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"cannot read {shard} ({error!r}); fetch it again, uncompressed") from error


def _complete(
    shard: Path, name: str, image: tuple[int, int] | None, text: str | None, label: str
) -> tuple[int, int, str]:
    if image is None or not text:
        missing = "image" if image is None else f"label, a file .{label.partition(':')[0]}"
        raise DataError(f"{shard}: sample {name.lstrip('/')!r} has no {missing}; see data.options")
    return (*image, text)
