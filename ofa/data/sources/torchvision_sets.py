"""The classification data sets of torchvision, by name."""

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torchvision import datasets

from ofa.core.errors import DataError, nearest, one_line
from ofa.data.config import DataConfig
from ofa.data.dataset import Data
from ofa.data.decode import Decoder
from ofa.data.images import stored
from ofa.data.splits import with_all_splits
from ofa.data.torch_dataset import DatasetStore, labels_of


def torchvision_set(config: DataConfig, name: str, **options: Any) -> Data:
    """Load `torchvision.datasets.NAME` from `data.folder`, or download it there; by default to torch's cache folder.

    Splits are taken by the argument `train` or `split`, whichever it has. Options are passed on.

    Raises:
        DataError: there is no such data set, it cannot be loaded, or its items are no images with one label.
    """
    sets = {kind: getattr(datasets, kind) for kind in datasets.__all__}
    if name not in sets:
        raise DataError(f"torchvision has no data set {name!r}; {nearest(name, sets)}")
    parameters = inspect.signature(sets[name]).parameters
    root = config.folder or f"{torch.hub.get_dir()}/../ofa/torchvision"
    common = {"root": str(root)} | ({"download": True} if "download" in parameters else {}) | options
    parts = {}
    for split, arguments in _splits(parameters).items():
        try:
            parts[split] = sets[name](**common, **arguments)
        except Exception as error:  # of all kinds
            if isinstance(error, ValueError) and split != "train":
                continue  # not all that have the argument `split` have such a part
            raise DataError(f"torchvision's {name} cannot be loaded from {root} ({one_line(error)})") from error
    labels = {split: labels_of(part) for split, part in parts.items()}
    numbers = range(int(labels["train"].max()) + 1)
    classes = [str(one) for one in getattr(parts["train"], "classes", None) or numbers]
    decoder = Decoder(config.in_channels, config.background)
    splits = {split: stored(DatasetStore(part, decoder), labels[split]) for split, part in parts.items()}
    return with_all_splits(name, classes, splits, config)


def _splits(parameters: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the arguments by which a data set with these parameters gives each split."""
    if "train" in parameters:
        return {"train": {"train": True}, "test": {"train": False}}
    if "split" in parameters:
        return {"train": {"split": "train"}, "validation": {"split": "val"}, "test": {"split": "test"}}
    return {"train": {}}
