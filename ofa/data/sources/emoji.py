"""Emoji as several vendors draw them, from the npm packages `emoji-datasource-VENDOR`."""

from collections import Counter
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ofa.core.errors import DataError
from ofa.core.files import read_json
from ofa.data.config import DataConfig
from ofa.data.dataset import Data
from ofa.data.decode import Decoder
from ofa.data.images import stored
from ofa.data.sources.files import FileStore
from ofa.data.splits import class_names, labels_of_names, split_by_class, with_all_splits

_PACKAGE = "emoji-datasource-"


def emoji(
    config: DataConfig,
    label: Literal["subcategory", "category"] = "subcategory",
    vendors: list[str] | None = None,
    min_emoji: int = 10,
) -> Data:
    """Load pictures of emoji, 64 pixels in color, from the folder that npm installed the packages into.

    Splits are cut by emoji, class by class: all pictures of an emoji, by any vendor, are in one split. So what is
    tested is whether an emoji that was never seen, such as a new animal, is told from those of other classes. Emoji
    that a vendor draws like another one are left out.

    Args:
        config: the section `data` of the recipe; `data.folder` is `node_modules`, or another folder with packages.
        label: which names of the packages' `emoji.json` are the classes, such as `animal-bird` or `Animals & Nature`.
        vendors: whose pictures; by default those of all packages that are there.
        min_emoji: classes of fewer emoji are left out; 3 or more.

    Raises:
        DataError: there is no such package or an option is wrong, or a package cannot be read.
    """
    root = config.folder or Path("node_modules")
    packages = {folder.name.removeprefix(_PACKAGE): folder for folder in sorted(root.glob(f"{_PACKAGE}*"))}
    vendors = sorted(packages) if vendors is None else vendors
    for vendor in vendors or ["google"]:
        if vendor not in packages:
            raise DataError(
                f"no package {_PACKAGE}{vendor} in {root}; run `npm install {_PACKAGE}{vendor}` and set data.folder to "
                "its node_modules, or name other vendors in data.options"
            )
    if label not in ("subcategory", "category") or min_emoji < 3:
        raise DataError(
            f"label = {label!r} and min_emoji = {min_emoji!r} are not both allowed; label is subcategory or category, "
            "min_emoji 3 or more"
        )
    emojis = _emojis(packages[vendors[0]] / "emoji.json", label, min_emoji)
    drawn = [(i, vendor) for vendor in vendors for i, one in enumerate(emojis) if one.get(f"has_img_{vendor}")]
    files = [f"{_PACKAGE}{vendor}/img/{vendor}/64/{emojis[i]['image']}" for i, vendor in drawn]
    store = FileStore.of(root, files, Decoder(config.in_channels, config.background))
    emoji_of, is_again = np.array([i for i, _ in drawn]), np.ones(len(drawn), bool)
    is_again[np.unique(store.hashes.numpy(), return_index=True)[1]] = False  # some flags look like one another
    kept = np.setdiff1d(np.arange(len(emojis)), emoji_of[is_again])
    classes = class_names(emojis[i][label] for i in kept.tolist())
    labels = labels_of_names([emojis[i][label] for i in kept.tolist()], classes)
    rest, test = split_by_class(labels, config.test_percent, classes)
    train, validation = (rest[part] for part in split_by_class(labels[rest], config.validation_percent, classes))
    label_of = np.full(len(emojis), -1)
    label_of[kept] = labels
    images = stored(store, label_of[emoji_of])
    splits = {
        split: images.subset(np.flatnonzero(np.isin(emoji_of, kept[own])))
        for split, own in {"train": train, "validation": validation, "test": test}.items()
    }
    return with_all_splits("emoji", classes, splits, config)


def _emojis(file: Path, label: str, min_emoji: int) -> list[dict[str, Any]]:
    """Return what a package says of each emoji in classes of enough emoji, in the usual order of emoji."""
    try:
        emojis: list[dict[str, Any]] = read_json(file)
        numbers = Counter(one[label] for one in emojis)
        of_large_classes = [one for one in emojis if numbers[one[label]] >= min_emoji]
        in_order = sorted(of_large_classes, key=lambda one: (one["sort_order"], one["image"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"cannot read {file} ({error!r}); install the package again") from error
    if not in_order:
        raise DataError(f"no {label} in {file} has {min_emoji} emoji; lower min_emoji in data.options")
    return in_order
