"""Folders of image files, one folder per class, as people have them."""

import os
from collections import Counter
from collections.abc import Iterator
from functools import partial
from itertools import chain
from pathlib import Path

import numpy as np

from ofa.core.errors import DataError
from ofa.data.config import DataConfig
from ofa.data.dataset import Data
from ofa.data.decode import Decoder, image_suffixes
from ofa.data.images import stored
from ofa.data.index import Listing, by_split, kept
from ofa.data.sources.files import FileStore, list_files, some_paths
from ofa.data.splits import split_named, with_all_splits

_SKIPPED = {"__MACOSX", "Thumbs.db", "desktop.ini"}


def image_folder(config: DataConfig) -> Data:
    """Load a folder with one folder of image files per class, or with such a folder for each split.

    Folders of splits may be called `train`, `training`; `val`, `valid`, `validation`; `test`, `testing`, in any case.
    Splits that have no folder are taken from the training images. All formats that Pillow reads are taken; names that
    begin with a dot, `__MACOSX`, `Thumbs.db` and `desktop.ini` are skipped.

    Raises:
        DataError: there is no such folder, images are broken, or the classes of splits differ.
    """
    root = config.folder
    if root is None or not root.is_dir():
        raise DataError(f"no folder {root}; set data.folder to a folder with one folder of images per class")
    root = root.absolute()
    listing = kept(f"image_folder {root}", partial(_listing, root))
    classes, folders = listing.facts["classes"], listing.facts["folders"]
    decoder = Decoder(config.in_channels, config.background)
    splits = {
        split: stored(FileStore.listed(root / folders[split], decoder, arrays), arrays["labels"])
        for split, arrays in listing.splits.items()
    }
    return with_all_splits(root.name, classes, splits, config, listing.notes)


def _listing(root: Path) -> Listing:
    folders, notes = _split_folders(root)
    skipped: Counter[str] = Counter()
    read = [str(root)]
    listed = {split: _classes(folder, skipped, read) for split, folder in folders.items()}
    classes = list(listed["train"])
    for split, files in listed.items():
        if not any(files.values()):
            raise DataError(f"{folders[split]} is not a folder with one folder of images per class: it holds no images")
        if list(files) != classes:
            raise DataError(f"{folders[split]} has the classes {list(files)}, but the training images have {classes}")
    if skipped:
        counts = ", ".join(f"{n} {kind}" for kind, n in skipped.most_common())
        notes.append(f"skipped in {root}: {counts}")
    splits = {}
    for split, files in listed.items():
        numbers = [len(of_class) for of_class in files.values()]
        splits[split] = list_files(folders[split], chain(*files.values())) | {
            "labels": np.repeat(np.arange(len(numbers)), numbers)
        }
        read += some_paths(folders[split], splits[split])
    facts = {
        "classes": classes,
        "folders": {split: os.path.relpath(folder, root) for split, folder in folders.items()},
    }
    return Listing(facts, by_split(splits), read, notes)


def _split_folders(root: Path) -> tuple[dict[str, Path], list[str]]:
    """Return the folder of each split, which is the root itself if none is called like the training split; and notes.

    Two folders for one split, or only folders of other splits, are a DataError.
    """
    subfolders = [folder for folder in sorted(root.iterdir()) if folder.is_dir() and not _is_skipped(folder.name)]
    folders: dict[str, Path] = {}
    for folder in subfolders:
        split = split_named(folder.name)
        if split in folders:
            raise DataError(f"{folders[split]} and {folder} are both folders of the {split} split; keep one")
        if split:
            folders[split] = folder
    if "train" in folders:
        unused = [folder for folder in subfolders if folder not in folders.values()]
        return folders, [f"{folder} is not used: it is no split, and others are" for folder in unused]
    if folders and len(folders) == len(subfolders):
        raise DataError(f"{root} has only {', '.join(sorted(folders))}, but no folder train; add the training images")
    return {"train": root}, [
        f"{folder} is taken for a class, though it is called like a split; if it is one, put the training images' "
        "folders into a folder train beside it"
        for folder in folders.values()
    ]


def _classes(folder: Path, skipped: Counter[str], read: list[str]) -> dict[str, list[str]]:
    """Return the image files of each class, relative to the folder.

    Counts what is skipped by kind, and adds the folders that were read.
    """
    entries = sorted(folder.iterdir())
    names = [entry.name for entry in entries if entry.is_dir()]
    skipped.update("hidden folder" for name in names if _is_skipped(name))
    skipped.update("file outside the folders of classes" for entry in entries if entry.is_file())
    read.append(str(folder))
    return {name: list(_image_files(folder, name, skipped, read)) for name in names if not _is_skipped(name)}


def _image_files(folder: Path, class_name: str, skipped: Counter[str], read: list[str]) -> Iterator[str]:
    seen = set()
    for parent, subfolders, files in os.walk(folder / class_name, followlinks=True):
        if (real := os.path.realpath(parent)) in seen:  # a link leads back
            subfolders.clear()
            continue
        seen.add(real)
        read.append(parent)
        skipped.update("hidden folder" for name in subfolders if _is_skipped(name))
        subfolders[:] = sorted(name for name in subfolders if not _is_skipped(name))
        relative = os.path.join(os.path.relpath(parent, folder), "")
        for file in sorted(files):
            suffix = os.path.splitext(file)[1].lower()
            if _is_skipped(file):
                skipped["hidden file"] += 1
            elif suffix not in image_suffixes():
                skipped[f"{suffix or 'without suffix'} (no image)"] += 1
            else:
                yield relative + file


def _is_skipped(name: str) -> bool:
    return name.startswith(".") or name in _SKIPPED
