"""Splits: which one a folder, a file or a value stands for by its name, and those that are cut from others."""

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ofa.core.errors import DataError, listed
from ofa.data.config import DataConfig
from ofa.data.dataset import SPLITS, Data, check_labels
from ofa.data.images import Images, Store, positions_by_label, stored

_NAMES = {"train": ("train", "training"), "validation": ("val", "valid", "validation"), "test": ("test", "testing")}
SPLIT_OF = {name: split for split, names in _NAMES.items() for name in names}
"""The split by its name in lower case."""


def split_named(name: str) -> str | None:
    """Return the split that a name stands for, in any case; None if it stands for none."""
    return SPLIT_OF.get(name.strip().lower())


def source_path(config: DataConfig, wanted: str) -> Path:
    """Return `data.folder` as an absolute path; a DataError that says what is wanted if there is no such path."""
    path = config.folder
    if path is None or not path.exists():
        raise DataError(f"no file or folder {path}; set data.folder to {wanted}")
    return path.absolute()


def files_by_split(path: Path, suffixes: tuple[str, ...]) -> dict[str, list[Path]]:
    """Return the files of each split: those of a folder with one of the suffixes, or the one file.

    A file belongs to the split that its name begins with, such as `train-00000-of-00002.parquet` or `val_3.tar`, or
    that the folder it lies in is called. If that holds for none, all are training images.

    Raises:
        DataError: there is no such file, or only some files name a split.
    """
    listed = ", ".join(f"*{suffix}" for suffix in suffixes)
    if path.is_file():
        files = [path]
    else:
        files = sorted(
            file for file in path.rglob("*") if file.name.endswith(suffixes) and not file.name.startswith(".")
        )
    if not files:
        raise DataError(f"no file {listed} in {path}; set data.folder to the folder that holds them, or to one of them")
    splits: dict[str, list[Path]] = {}
    unnamed = []
    for file in files:
        split = _split_of_file(file, path)
        splits.setdefault(split, []).append(file) if split else unnamed.append(file)
    if unnamed and splits:
        raise DataError(
            f"{unnamed[0]} names no split, but {next(iter(splits.values()))[0]} does; let the name of every file begin "
            f"with one of {', '.join(SPLIT_OF)}, or of none"
        )
    return splits or {"train": unnamed}


def _split_of_file(file: Path, root: Path) -> str | None:
    folders = file.relative_to(root).parts[:-1] if file != root else ()
    return split_named(re.split(r"[^a-zA-Z]", file.name)[0]) or next(filter(None, map(split_named, folders)), None)


def class_names(values: Iterable[str]) -> list[str]:
    """Return the different values in order: by number if all are whole numbers, otherwise as texts."""
    different = set(values)
    return (
        sorted(different, key=int) if all(re.fullmatch(r"-?\d+", value) for value in different) else sorted(different)
    )


def labels_of_names(names: Sequence[str], classes: Sequence[str]) -> NDArray[np.int64]:
    """Return the numbers of classes `[n]` by their names."""
    label_of = {name: number for number, name in enumerate(classes)}
    return np.fromiter(map(label_of.__getitem__, names), np.int64, len(names))


def names_of_numbers(source: object, split: str, numbers: Iterable[object], classes: Sequence[str] | None) -> list[str]:
    """Return the classes' names by the labels of a split: those of the numbers, or the labels as texts without names.

    A label that is missing, or the number of no class, such as the -1 of images without a label, is a DataError.
    """
    name_of = None if classes is None else {str(number): name for number, name in enumerate(classes)}
    names = []
    for text, number in ((str(number), number) for number in numbers):
        if number is None or (name_of is not None and text not in name_of):
            allowed = "" if classes is None else f", but its classes are 0 to {len(classes) - 1}: {listed(classes)}"
            raise DataError(
                f"{source} has the label {text!r} in {split}{allowed}; mend the labels, or leave the split out if its "
                "images have none"
            )
        names.append(text if name_of is None else name_of[text])
    return names


def with_class_names(
    name: str,
    given: Mapping[str, tuple[Store, Sequence[str]]],
    config: DataConfig,
    classes: Sequence[str] | None = None,
) -> Data:
    """Return the data set of stores by split, each with the name of every image's class; see `with_all_splits`.

    The classes are those given and, after them, those that occur beside them, as `class_names` orders them.
    """
    occurring = class_names(own for _, names in given.values() for own in names)
    classes = list(dict.fromkeys([*(classes or ()), *occurring]))
    splits = {split: stored(store, labels_of_names(names, classes)) for split, (store, names) in given.items()}
    return with_all_splits(name, classes, splits, config)


def with_all_splits(
    name: str, classes: Sequence[str], given: Mapping[str, Images], config: DataConfig, notes: Sequence[str] = ()
) -> Data:
    """Return the data set; splits that are not given are taken from the training images, class by class.

    `notes` are sentences about what a user may not expect.

    Raises:
        DataError: there are no training images, or too few of a class; a class of another split has none.
    """
    splits = dict(given)
    if not splits.get("train"):
        raise DataError(f"data set {name!r} has no training images, only {sorted(splits)}; add some")
    for split, images in splits.items():
        check_labels(name, split, images.labels, classes)
    trained = splits["train"].labels.numpy()
    for split, images in splits.items():
        for label in np.setdiff1d(images.labels.numpy(), trained).tolist():
            raise DataError(
                f"data set {name!r} has images of class {classes[label]!r} in {split} but none in train; add some"
            )
    for split, percent in (("test", config.test_percent), ("validation", config.validation_percent)):
        if split not in splits:
            remaining, moved = split_by_class(splits["train"].labels.numpy(), percent, classes)
            splits["train"], splits[split] = splits["train"].subset(remaining), splits["train"].subset(moved)
    train, validation, test = (splits[split] for split in SPLITS)
    return Data(name, tuple(classes), train=train, validation=validation, test=test, notes=tuple(notes))


def split_by_class(labels: np.ndarray, percent: float, names: Sequence[str] = ()) -> tuple[np.ndarray, np.ndarray]:
    """Move `percent` of the images of each class, at least one, to a second part.

    Returns the ascending positions of the first and of the second part in `labels` `[n]`. A class, called as in
    `names`, that has fewer than two images is a DataError.
    """
    rng = np.random.default_rng(0)
    moved = []
    for label, own in enumerate(positions_by_label(labels)):
        positions = rng.permutation(own)
        if len(positions) < 2:
            raise DataError(
                f"class {names[label] if names else label!r} has too few images to split; every class needs at least "
                "3: one each for training, validation and test"
            )
        moved.append(positions[: max(1, round(len(positions) * percent / 100))])
    in_second = np.zeros(len(labels), bool)
    in_second[np.concatenate(moved)] = True
    return np.flatnonzero(~in_second), np.flatnonzero(in_second)
