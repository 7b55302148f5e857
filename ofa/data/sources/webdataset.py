"""Tar shards of images and labels, as webdataset has them: read where they lie, never unpacked."""

import os
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import chain, groupby
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL.Image import Image
from torch import Tensor

from ofa.core.errors import DataError
from ofa.core.files import parse_json
from ofa.data.config import DataConfig
from ofa.data.dataset import Data
from ofa.data.decode import Decoder, Side, image_suffixes, reading
from ofa.data.images import Positions, stored
from ofa.data.index import Listing, by_split, kept
from ofa.data.sources.files import edge_hash
from ofa.data.splits import class_names, files_by_split, labels_of_names, source_path, with_all_splits


@dataclass(frozen=True, repr=False)
class ShardStore:
    """Encoded images in tar files. Tensors hold what is known of them: workers share their memory.

    Attributes:
        shards: the files.
        decoder: what turns an encoded image into pixels.
        places: shard, first byte and number of bytes of each image `[n, 3]`.
        hashes: a number of each image's size and both ends `[n]`, uint64; see `edge_hash`.
    """

    shards: tuple[Path, ...]
    decoder: Decoder
    places: Tensor
    hashes: Tensor

    def __repr__(self) -> str:
        return f"shards in {self.shards[0].parent}"

    def name(self, position: int) -> str:
        """See `Store.name`."""
        shard, start, _ = self.places[position].tolist()
        return f"at byte {start} of {self.shards[shard]}"

    def picture(self, position: int, side: Side | None = None) -> Image:
        """See `Store.picture`."""
        return self.decoder.encoded(self._bytes(*self.places[position].tolist()), self.name(position), side)

    def fingerprints(self, positions: Positions) -> NDArray[np.uint64]:
        """See `Store.fingerprints`. They tell sizes and both ends of images: whole ones take long to read."""
        hashes: NDArray[np.uint64] = self.hashes.numpy()[positions]
        return hashes

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
    shards = files_by_split(root, (".tar",))
    listing = kept(f"webdataset {root} {shards} {label}", partial(_listing, shards, label))
    decoder = Decoder(config.in_channels, config.background)
    splits = {}
    for split, arrays in listing.splits.items():
        tensors = (torch.from_numpy(arrays[name]) for name in ("places", "hashes"))
        splits[split] = stored(ShardStore(tuple(shards[split]), decoder, *tensors), arrays["labels"])
    return with_all_splits(root.stem, listing.facts["classes"], splits, config, listing.notes)


def _listing(shards: dict[str, list[Path]], label: str) -> Listing:
    splits, names = dict[str, dict[str, NDArray[Any]]](), dict[str, list[str]]()
    for split, own in shards.items():
        samples = [(n, *sample) for n, shard in enumerate(own) for sample in _samples(shard, label)]
        names[split] = [text for *_, text in samples]
        hashes = (edge_hash(own[shard], start, size) for shard, start, size, _ in samples)
        splits[split] = {
            "places": np.array([place for *place, _ in samples], dtype=np.int64).reshape(-1, 3),
            "hashes": np.fromiter(hashes, np.uint64, len(samples)),
        }
    classes = class_names(chain(*names.values()))
    for split, arrays in splits.items():
        arrays["labels"] = labels_of_names(names[split], classes)
    read = list(map(str, chain(*shards.values())))
    return Listing({"classes": classes}, by_split(splits), read)


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
            value = parse_json(content)[key] if key else content.strip()
            text = "" if value is None else str(value)
    if len(images) > 1:
        raise DataError(f"{shard}: sample {name!r} has several images; give it one")
    if not images or not text:
        missing = f"label, a file .{label_suffix}" if images else "image"
        raise DataError(f"{shard}: sample {name!r} has no {missing}; see data.options")
    return (*images[0], text)
