"""Tables of image files: a CSV file with a path and a label in each row."""

import csv
import os
from collections.abc import Iterator
from functools import partial
from itertools import chain
from pathlib import Path

from ofa.core.errors import DataError, nearest
from ofa.data.config import DataConfig
from ofa.data.dataset import Data
from ofa.data.decode import Decoder
from ofa.data.images import stored
from ofa.data.index import Listing, by_split, kept
from ofa.data.sources.files import FileStore, list_files, some_paths
from ofa.data.splits import (
    SPLIT_OF,
    class_names,
    files_by_split,
    labels_of_names,
    source_path,
    split_named,
    with_all_splits,
)

_Row = tuple[str, str, str | None]


def csv_file(
    config: DataConfig, image: str = "path", label: str = "label", split: str = "split", delimiter: str = ","
) -> Data:
    """Load the images that the rows of CSV files name; paths are relative to the file.

    `data.folder` is the file, or a folder with a file for each split, such as `train.csv`.

    Args:
        config: the section `data` of the recipe.
        image: the column of the paths.
        label: the column of the classes' names.
        split: the column of the splits, called as folders of splits may be; needed only in a single file that has
            several splits.
        delimiter: what separates columns.

    Raises:
        DataError: a file, a column or an image is missing, or a split has another name.
    """
    root = source_path(config, "a CSV file, or to a folder of one for each split")
    files = files_by_split(root, (".csv",))
    folder = root if root.is_dir() else root.parent
    columns = (image, label, split)
    what = f"csv {folder} {files} {columns} {delimiter}"
    listing = kept(what, partial(_listing, folder, files, columns, delimiter))
    decoder = Decoder(config.in_channels, config.background)
    splits = {
        which: stored(FileStore.listed(folder, decoder, arrays), arrays["labels"])
        for which, arrays in listing.splits.items()
    }
    return with_all_splits(root.stem, listing.facts["classes"], splits, config, listing.notes)


def _listing(folder: Path, files: dict[str, list[Path]], columns: tuple[str, str, str], delimiter: str) -> Listing:
    names, labels = dict[str, list[str]](), dict[str, list[str]]()
    for of_file, own in files.items():
        for file in own:
            beside = os.path.relpath(file.parent, folder)
            for path, label, own_split in _rows(file, columns, delimiter):
                names.setdefault(own_split or of_file, []).append(path if beside == "." else os.path.join(beside, path))
                labels.setdefault(own_split or of_file, []).append(label)
    classes = class_names(chain(*labels.values()))
    splits, read = {}, list(map(str, chain(*files.values())))
    for split, own_names in names.items():
        splits[split] = list_files(folder, own_names) | {"labels": labels_of_names(labels[split], classes)}
        read += some_paths(folder, splits[split])
    return Listing({"classes": classes}, by_split(splits), read)


def _rows(file: Path, columns: tuple[str, str, str], delimiter: str) -> Iterator[_Row]:
    """Yield the path, the class and the split, if any, of each row."""
    image, label, split = columns
    try:
        with file.open(newline="", encoding="utf-8-sig") as lines:
            reader = csv.DictReader(lines, delimiter=delimiter, strict=True)
            header = reader.fieldnames or []
            for wanted in (image, label):
                if wanted not in header:
                    raise DataError(f"{file} has no column {wanted!r}; {nearest(wanted, header)}; see data.options")
            for row in reader:
                if not row[image] or not row[label]:
                    raise DataError(f"{file}, line {reader.line_num}: needs a value for {image!r} and for {label!r}")
                yield row[image], row[label], _split(file, reader.line_num, row.get(split))
    except (csv.Error, UnicodeDecodeError) as error:
        raise DataError(
            f"cannot read {file} ({error}); save it as CSV in UTF-8, with a line of column names"
        ) from error


def _split(file: Path, line: int, value: str | None) -> str | None:
    if not value:
        return None
    split = split_named(value)
    if split is None:
        raise DataError(f"{file}, line {line}: split {value!r} is not allowed; use one of {', '.join(SPLIT_OF)}")
    return split
