"""Parquet files as Hugging Face data sets are stored: encoded images and labels, read by row group."""

from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL.Image import Image

from ofa.core.errors import DataError, nearest
from ofa.core.files import parse_json
from ofa.data.config import DataConfig
from ofa.data.dataset import Data
from ofa.data.decode import Decoder, Side
from ofa.data.images import Positions, short_hash
from ofa.data.sources.files import edge_hash
from ofa.data.splits import files_by_split, names_of_numbers, source_path, with_class_names

_HASHED_BYTES = 2**30
"""Size of the files up to which every image is hashed."""
_KEPT_BYTES = 2**28
"""Encoded images of the row groups read last that stay in memory."""


@dataclass(frozen=True, repr=False)
class ParquetStore:
    """Encoded images in a column of parquet files; the row groups read last stay in memory, up to a bound.

    Attributes:
        files: the files, in order.
        column: the column of the images: bytes, or a struct with a field `bytes`.
        groups: file and row group `[n_groups, 2]`.
        ends: position after the last row of each group.
        decoder: what turns an encoded image into pixels.
    """

    files: tuple[Path, ...]
    column: str
    groups: NDArray[np.int64]
    ends: NDArray[np.int64]
    decoder: Decoder
    kept: "OrderedDict[int, Any]" = field(default_factory=OrderedDict, compare=False)

    def __repr__(self) -> str:
        return f"parquet files in {self.files[0].parent}"

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"kept": OrderedDict()}

    def name(self, position: int) -> str:
        """See `Store.name`."""
        return f"{position} in {self.files[self.groups[self._group(position), 0]]}"

    def picture(self, position: int, side: Side | None = None) -> Image:
        """See `Store.picture`."""
        group = self._group(position)
        content = self._images(group)[position - (int(self.ends[group - 1]) if group else 0)].as_py()
        if content is None:
            raise DataError(f"the image {self.name(position)} is empty; leave its row out")
        return self.decoder.encoded(content, self.name(position), side)

    def fingerprints(self, positions: Positions) -> NDArray[np.uint64]:
        """See `Store.fingerprints`. Of more than a gigabyte they tell files and rows: all of it takes long to read."""
        if sum(file.stat().st_size for file in self.files) > _HASHED_BYTES:
            of_files = np.array([edge_hash(file) for file in self.files], np.uint64)
            rows = np.searchsorted(self.ends, positions, side="right")
            of_rows: NDArray[np.uint64] = of_files[self.groups[rows, 0]] ^ positions.astype(np.uint64)
            return of_rows
        return self._hashes[positions]

    @cached_property
    def _hashes(self) -> NDArray[np.uint64]:
        """Hashes of all images: splits that are cut from one another share them."""
        hashes = np.empty(int(self.ends[-1]), np.uint64)
        for group, end in enumerate(self.ends.tolist()):
            images = self._images(group)
            for row, content in enumerate(images, end - len(images)):
                hashes[row] = short_hash(content.as_buffer() if content.is_valid else b"")
        return hashes

    def _group(self, position: int) -> int:
        return int(np.searchsorted(self.ends, position, side="right"))

    def _images(self, group: int) -> Any:
        """Return the encoded images of a row group, as an Arrow array of bytes."""
        if group in self.kept:
            self.kept.move_to_end(group)
            return self.kept[group]
        import pyarrow as arrow

        file, number = self.groups[group].tolist()
        with _opened(self.files[file]) as parquet:
            column = parquet.read_row_group(number, columns=[self.column])[self.column].combine_chunks()
        if arrow.types.is_struct(column.type):
            column = column.field("bytes")
        self.kept[group] = column
        while len(self.kept) > 1 and sum(one.nbytes for one in self.kept.values()) > _KEPT_BYTES:
            self.kept.popitem(last=False)
        return column


def parquet(config: DataConfig, image: str = "image", label: str = "label") -> Data:
    """Load parquet files; requires pyarrow.

    `data.folder` is a file, or a folder with files for each split, such as `train-00000-of-00002.parquet`.

    Args:
        config: the section `data` of the recipe.
        image: the column of the images: encoded bytes, or a struct with a field `bytes`, as the library `datasets` has.
        label: the column of the labels: integers, whose names are read from the file if it has any, or texts.

    Raises:
        DataError: pyarrow, a file or a column is missing, or a file is cut short.
    """
    root = source_path(config, "a parquet file, or to a folder of them")
    decoder = Decoder(config.in_channels, config.background)
    stores: dict[str, ParquetStore] = {}
    values: dict[Path, list[Any]] = {}
    own: dict[Path, list[str] | None] = {}
    for split, files in files_by_split(root, (".parquet",)).items():
        groups, ends = list[tuple[int, int]](), list[int]()
        for number, file in enumerate(files):
            with _opened(file) as opened:
                _check_columns(file, opened.schema_arrow, image, label)
                own[file] = _label_names(opened.schema_arrow, label)
                for group in range(opened.num_row_groups):
                    groups.append((number, group))
                    ends.append((ends[-1] if ends else 0) + opened.metadata.row_group(group).num_rows)
                values[file] = opened.read(columns=[label])[label].to_pylist()
                if None in values[file]:
                    raise DataError(f"{file}: row {values[file].index(None)} has no {label!r}; leave the row out")
        stores[split] = ParquetStore(tuple(files), image, np.array(groups).reshape(-1, 2), np.array(ends), decoder)
    classes = next(filter(None, own.values()), None)
    given = dict[str, tuple[ParquetStore, list[str]]]()
    for split, store in stores.items():
        names = (names_of_numbers(file, split, values[file], own[file] or classes) for file in store.files)
        given[split] = (store, list(chain.from_iterable(names)))
    return with_class_names(root.stem, given, config, classes)


def _check_columns(file: Path, schema: Any, image: str, label: str) -> None:
    import pyarrow as arrow

    for wanted in (image, label):
        if wanted not in schema.names:
            raise DataError(f"{file} has no column {wanted!r}; {nearest(wanted, schema.names)}; see data.options")
    kind = schema.field(image).type
    if arrow.types.is_struct(kind) and kind.get_field_index("bytes") >= 0:
        kind = kind.field("bytes").type
    if not (arrow.types.is_binary(kind) or arrow.types.is_large_binary(kind)):
        raise DataError(f"{file}: column {image!r} is {kind}; give encoded images as bytes, or a struct with them")


def _label_names(schema: Any, label: str) -> list[str] | None:
    """Return the names of the classes that the library `datasets` notes in a file, if it does."""
    try:
        noted = parse_json((schema.metadata or {}).get(b"huggingface", b"{}"))
        names = noted["info"]["features"][label]["names"]
    except (ValueError, KeyError, TypeError):
        return None
    return [str(name) for name in names] if isinstance(names, list) and names else None


@contextmanager
def _opened(file: Path) -> Iterator[Any]:
    """Open a parquet file; a DataError names it if pyarrow is missing or the file cannot be read."""
    try:
        from pyarrow import ArrowException
        from pyarrow.parquet import ParquetFile
    except ImportError as error:
        raise DataError("parquet files require pyarrow; run in the checkout: pip install -e '.[parquet]'") from error
    try:
        with ParquetFile(file, memory_map=True) as opened:
            yield opened
    except (ArrowException, OSError) as error:
        raise DataError(f"cannot read {file} ({error}); fetch it again") from error
