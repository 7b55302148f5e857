"""Folders of image files, one folder per class, as people have them."""

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from ofa.core.errors import DataError
from ofa.data.config import DataConfig
from ofa.data.dataset import Data
from ofa.data.decode import Decoder, image_suffixes
from ofa.data.images import StoredImages, stored
from ofa.data.sources.files import FileStore
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
    folders, notes = _split_folders(root)
    skipped: Counter[str] = Counter()
    listed = {split: _classes(folder, skipped) for split, folder in folders.items()}
    classes = list(listed["train"])
    for split, files in listed.items():
        if not any(files.values()):
            raise DataError(f"{folders[split]} is not a folder with one folder of images per class: it holds no images")
        if list(files) != classes:
            raise DataError(f"{folders[split]} has the classes {list(files)}, but the training images have {classes}")
        notes += [f"{folders[split] / name} holds no images" for name, its_files in files.items() if not its_files]
    if skipped:
        counts = ", ".join(f"{n} {kind}" for kind, n in skipped.most_common())
        notes.append(f"skipped in {root}: {counts}")
    decoder = Decoder(config.in_channels, config.background)
    splits = {split: _images(folders[split], files, decoder) for split, files in listed.items()}
    return with_all_splits(root.absolute().name, classes, splits, config, notes)


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


def _classes(folder: Path, skipped: Counter[str]) -> dict[str, list[str]]:
    """Return the image files of each class, relative to the folder; counts what is skipped by kind."""
    names = [entry.name for entry in sorted(folder.iterdir()) if entry.is_dir()]
    skipped.update("hidden folder" for name in names if _is_skipped(name))
    skipped.update("file outside the folders of classes" for entry in folder.iterdir() if entry.is_file())
    return {
        name: [os.path.relpath(path, folder) for path in _image_files(folder / name, skipped)]
        for name in names
        if not _is_skipped(name)
    }


def _image_files(folder: Path, skipped: Counter[str]) -> Iterator[str]:
    seen = set()
    for parent, subfolders, files in os.walk(folder, followlinks=True):
        if (real := os.path.realpath(parent)) in seen:  # a link leads back
            subfolders.clear()
            continue
        seen.add(real)
        skipped.update("hidden folder" for name in subfolders if _is_skipped(name))
        subfolders[:] = sorted(name for name in subfolders if not _is_skipped(name))
        for name in sorted(files):
            suffix = os.path.splitext(name)[1].lower()
            if _is_skipped(name):
                skipped["hidden file"] += 1
            elif suffix not in image_suffixes():
                skipped[f"{suffix or 'without suffix'} (no image)"] += 1
            else:
                yield os.path.join(parent, name)


def _is_skipped(name: str) -> bool:
    return name.startswith(".") or name in _SKIPPED


def _images(folder: Path, files: dict[str, list[str]], decoder: Decoder) -> StoredImages:
    names = [name for of_class in files.values() for name in of_class]
    labels = [label for label, of_class in enumerate(files.values()) for _ in of_class]
    return stored(FileStore.of(folder, names, decoder), labels)
