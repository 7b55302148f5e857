"""Stratified splits."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ofa.core.errors import DataError


def split_by_class(labels: np.ndarray, percent: float, names: Sequence[str] = ()) -> tuple[np.ndarray, np.ndarray]:
    """Move `percent` of the images of each class, at least one, to a second part.

    Returns:
        The ascending positions of the first and of the second part in `labels` `[n]`.

    Raises:
        DataError: a class, called as in `names`, has fewer than two images.
    """
    rng = np.random.default_rng(0)
    moved = []
    for label in range(int(labels.max()) + 1):
        positions = rng.permutation(np.flatnonzero(labels == label))
        if len(positions) < 2:
            raise DataError(
                f"class {names[label] if names else label!r} has too few images to split; every class needs at least "
                "3: one each for training, validation and test"
            )
        moved.append(positions[: max(1, round(len(positions) * percent / 100))])
    second = np.sort(np.concatenate(moved))
    return np.setdiff1d(np.arange(len(labels)), second), second
