"""NumPy arrays of images and labels: a .npz file, or a folder of .npy files. What is not compressed stays on disk."""

import re
import struct
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL.Image import Image

from ofa.core.errors import DataError
from ofa.data.config import DataConfig
from ofa.data.dataset import Data
from ofa.data.decode import Decoder, Side, reading
from ofa.data.images import Positions, short_hash
from ofa.data.splits import source_path, split_named, with_class_names

_IMAGES, _LABELS = ("images", "image", "x"), ("labels", "label", "y")
_LOCAL_HEADER_BYTES = 30
_NAMES = (
    "call arrays images and labels, or train_images, train_labels, val_images and so on, or x_train, y_train and so on"
)


@dataclass(frozen=True, repr=False)
class ArrayStore:
    """Images in one array uint8 `[n, h, w]`, `[n, h, w, c]` or `[n, c, h, w]`, which may lie on disk."""

    images: NDArray[np.uint8]
    decoder: Decoder
    where: str

    def __repr__(self) -> str:
        return f"array {list(self.images.shape)}"

    def name(self, position: int) -> str:
        """See `Store.name`."""
        return f"{position} of {self.where}"

    def picture(self, position: int, side: Side | None = None) -> Image:  # noqa: ARG002  # nothing is decoded
        """See `Store.picture`."""
        with reading(self.name(position)):
            return self.decoder.array(self.images[position])

    def fingerprints(self, positions: Positions) -> NDArray[np.uint64]:
        """See `Store.fingerprints`."""
        hashes = (short_hash(self.images[i].tobytes()) for i in positions.tolist())
        return np.fromiter(hashes, np.uint64, len(positions))


def arrays(config: DataConfig) -> Data:
    """Load arrays of images and labels.

    `data.folder` is a `.npz` file, or a folder of `.npy` files or with one `.npz` file. The arrays are called `images`
    and `labels`; or `train_images`, `train_labels`, `val_images` and so on; or `x_train`, `y_train` and so on. Images
    are uint8 `[n, h, w]`, `[n, h, w, c]` or `[n, c, h, w]`, labels integers or texts `[n]` or `[n, 1]`.

    Raises:
        DataError: arrays are missing, broken, do not fit each other, or hold something else.
    """
    root = source_path(config, "a .npz file, or to a folder of .npy files")
    by_split: dict[str, dict[str, Any]] = {}
    for name, array in _arrays(root).items():
        split, kind = _meaning(name)
        if kind in by_split.setdefault(split, {}):
            raise DataError(f"{root} has two arrays of {kind} for {split}, one is {name!r}; {_NAMES}")
        by_split[split][kind] = array
    for split, parts in by_split.items():
        for missing in {"images", "labels"} - set(parts):
            raise DataError(f"{root} has no array of {missing} for {split}; {_NAMES}")
    decoder, stores = Decoder(config.in_channels, config.background), dict[str, tuple[ArrayStore, list[str]]]()
    for split, parts in by_split.items():
        images, names = parts["images"], _as_texts(root, split, parts["labels"])
        if images.ndim not in (3, 4) or len(images) != len(names):
            raise DataError(
                f"{root}: {split} has images of shape {list(images.shape)} and {len(names)} labels; give images "
                "[n, h, w], [n, h, w, c] or [n, c, h, w] and a label for each"
            )
        store = ArrayStore(images, decoder, f"{split} in {root}")
        if names:
            store.picture(0)  # shape and type are the same for all
        stores[split] = store, names
    return with_class_names(root.stem, stores, config)


def _arrays(root: Path) -> Mapping[str, NDArray[Any]]:
    files = [root] if root.is_file() else sorted((*root.glob("*.npy"), *root.glob("*.npz")))
    if not files:
        raise DataError(f"{root} holds no .npy and no .npz file; {_NAMES}")
    named: dict[str, NDArray[Any]] = {}
    for file in files:
        try:
            named |= _of_npz(file) if file.suffix == ".npz" else {file.stem: np.load(file, mmap_mode="r")}
        except (OSError, ValueError, EOFError, zipfile.BadZipFile, struct.error) as error:
            raise DataError(f"cannot read the arrays in {file} ({error}); save them again with numpy.savez") from error
    return named


def _of_npz(file: Path) -> dict[str, NDArray[Any]]:
    """Return the arrays of an archive: parts of the file where they are not compressed."""
    with zipfile.ZipFile(file) as archive, np.load(file) as loaded:
        return {
            info.filename.removesuffix(".npy"): _mapped(file, info)
            if info.compress_type == zipfile.ZIP_STORED
            else loaded[info.filename.removesuffix(".npy")]
            for info in archive.infolist()
        }


def _mapped(file: Path, info: zipfile.ZipInfo) -> NDArray[Any]:
    with file.open("rb") as content:
        content.seek(info.header_offset)
        name_bytes, extra_bytes = struct.unpack_from("<HH", content.read(_LOCAL_HEADER_BYTES), offset=26)
        content.seek(name_bytes + extra_bytes, 1)
        version = np.lib.format.read_magic(content)
        read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, fortran, dtype = read_header(content)
        if dtype.hasobject:
            raise ValueError(f"{info.filename} holds Python objects")
        values = np.memmap(file, dtype, "r", content.tell(), shape, "F" if fortran else "C")
        return np.asarray(values)


def _meaning(name: str) -> tuple[str, str]:
    """Return the split and the kind, `images` or `labels`, of an array by its name."""
    words = [word for word in re.split(r"[^a-z]+", name.lower()) if word]
    splits = [split for split in map(split_named, words) if split]
    kinds = [kind for kind, names in (("images", _IMAGES), ("labels", _LABELS)) for word in words if word in names]
    if len(kinds) != 1 or len(splits) > 1:
        raise DataError(f"an array is called {name!r}; {_NAMES}")
    return (splits or ["train"])[0], kinds[0]


def _as_texts(root: Path, split: str, labels: NDArray[Any]) -> list[str]:
    flat = labels.reshape(len(labels), -1) if labels.ndim else labels.reshape(1, 1)
    if flat.shape[1] != 1 or labels.dtype.kind not in "iuU":
        raise DataError(
            f"{root}: labels for {split} are {labels.dtype} {list(labels.shape)}; give an integer or a text each"
        )
    return [str(value) for value in flat[:, 0].tolist()]
