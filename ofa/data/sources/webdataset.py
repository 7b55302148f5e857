"""Tar shards of images and labels, as webdataset has them: read where they lie, never unpacked."""

import json
import os
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ofa.core.errors import DataError
from ofa.data.config import DataConfig
from ofa.data.dataset import Data
from ofa.data.decode import Decoder, image_suffixes, reading
from ofa.data.images import Positions
from ofa.data.sources.files import edge_hash
from ofa.data.splits import files_by_split, source_path, with_class_names


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
        places = self.places[positions].tolist()
        hashes = (edge_hash(self.shards[shard], start, size) for shard, start, size in places)
        return np.fromiter(hashes, np.uint64, len(positions))

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
    root = source_path(config, "a tar shard, or to a folder of them")
    decoder, stores = Decoder(config.in_channels, config.background), dict[str, tuple[ShardStore, list[str]]]()
    for split, shards in files_by_split(root, (".tar",)).items():
        samples = [(n, *sample) for n, shard in enumerate(shards) for sample in _samples(shard, label)]
        places = np.array([place for *place, _ in samples], dtype=np.int64).reshape(-1, 3)
        stores[split] = ShardStore(tuple(shards), places, decoder), [text for *_, text in samples]
    return with_class_names(root.stem, stores, config)


def _samples(shard: Path, label: str) -> Iterator[tuple[int, int, str]]:
    """Yield the first byte and the size of the image, and the label, of each sample of a shard."""
    try:
        with tarfile.open(shard, "r:") as tar:
            files = (member for member in tar if member.isfile() and not os.path.basename(member.name).startswith("."))
            for name, members in groupby(files, key=lambda member: _parts(member.name)[0]):
                yield _sample(tar, shard, name, members, label)
    except (tarfile.TarError, OSError, UnicodeDecodeError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"cannot read {shard} ({error!r}); fetch it again, uncompressed") from error


def _parts(path: str) -> tuple[str, str]:
    """Return the name of the sample that a file belongs to, and the file's suffix, without the dot."""
    folder, _, file = path.rpartition("/")
    stem, _, suffix = file.partition(".")
    return f"{folder}/{stem}".lstrip("/"), suffix


def _sample(
    tar: tarfile.TarFile, shard: Path, name: str, members: Iterable[tarfile.TarInfo], label: str
) -> tuple[int, int, str]:
    label_suffix, _, key = label.partition(":")
    images, text = list[tuple[int, int]](), ""
    for member in members:
        if member.offset_data + member.size > shard.stat().st_size:
            raise tarfile.ReadError("it is cut short")
        _, suffix = _parts(member.name)
        if f".{suffix.rpartition('.')[2].lower()}" in image_suffixes():
            images.append((member.offset_data, member.size))
        elif suffix == label_suffix:
            content = tar.extractfile(member).read().decode()  # type: ignore[union-attr]  # it is a file
            text = str(json.loads(content)[key]) if key else content.strip()
    if len(images) > 1:
        raise DataError(f"{shard}: sample {name!r} has several images; give it one")
    if not images or not text:
        missing = f"label, a file .{label_suffix}" if images else "image"
        raise DataError(f"{shard}: sample {name!r} has no {missing}; see data.options")
    return (*images[0], text)
