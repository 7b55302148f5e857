"""Labelled images in three separate splits.

An image is a uint8 tensor `[channels, height, width]` of any size.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ofa.core.errors import DataError


def split_by_class(labels: np.ndarray, percent: float, names: Sequence[str] = ()) -> tuple[np.ndarray, np.ndarray]:
    """Positions kept and positions moved, at least one of each per class, in the same shares for every class."""
    rng = np.random.default_rng(0)
    moved = []
    for label in range(int(labels.max()) + 1):
        members = rng.permutation(np.flatnonzero(labels == label))
        if len(members) < 2:
            name = names[label] if names else label
            raise DataError(
                f"class {name!r} has too few images to split; every class needs at least 3: "
                "one each for training, validation and test"
            )
        moved.append(members[: max(1, round(len(members) * percent / 100))])
    out = np.sort(np.concatenate(moved))
    return np.setdiff1d(np.arange(len(labels)), out), out
