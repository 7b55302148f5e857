"""What a data set holds, and what a user should know of it before a training."""

from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ofa.data.dataset import SPLITS, Data
from ofa.data.images import Images, evenly

_UNEVEN = 10
"""Times as many training images as the smallest class has, from which a class is said to be large."""
_COMPARED = 1000
"""Images of equal fingerprints whose pixels are compared."""
_MEASURED = 500
"""Images, spread evenly, whose sizes are looked at."""


def overview(data: Data, *, weighed: bool = False) -> dict[str, Any]:
    """Return the numbers of images by split and class, sizes of images in pixels, and `findings`."""
    counts = _counts(data)
    sides = np.array([data.train[i][0].shape[1:] for i in evenly(len(data.train), _MEASURED).tolist()])
    return {
        "name": data.name,
        "channels": data.in_channels,
        "images": {split: int(of_split.sum()) for split, of_split in counts.items()},
        "classes": {
            name: {split: int(of_split[i]) for split, of_split in counts.items()} for i, name in enumerate(data.labels)
        },
        "height": [int(side) for side in np.percentile(sides[:, 0], (0, 50, 100))],
        "width": [int(side) for side in np.percentile(sides[:, 1], (0, 50, 100))],
        "findings": findings(data, weighed=weighed),
    }


def findings(data: Data, *, weighed: bool = False) -> list[str]:
    """Return, as sentences, what its source noted, images in two splits, empty classes and very uneven ones.

    `weighed` says that the training weighs classes by their numbers of images, which uneven ones need.
    """
    sentences = list(data.notes)
    for (first, images), (second, others) in combinations([(split, getattr(data, split)) for split in SPLITS], 2):
        pairs = _shared(images, others)
        if pairs:
            i, j = pairs[0]
            more = "" if len(pairs) < _COMPARED else " or more"
            sentences.append(
                f"{len(pairs)}{more} images of {second} are in {first}, too, such as {others.name(j)}, which is "
                f"{images.name(i)}: accuracies on {second} will be too high; remove them from one of the two"
            )
    by_split = _counts(data)
    for split, of_split in by_split.items():
        sentences += [f"class {data.labels[i]!r} has no images in {split}" for i in np.flatnonzero(of_split == 0)]
    counts = by_split["train"]
    smallest, largest = np.where(counts, counts, counts.max()).argmin(), counts.argmax()
    if counts[largest] > _UNEVEN * counts[smallest] and data.sampler == "shuffled" and not weighed:
        sentences.append(
            f"class {data.labels[largest]!r} has {counts[largest]} training images, {data.labels[smallest]!r} has "
            f"{counts[smallest]}; data.sampler: balanced trains as many of each, train.class_weights: balanced weighs "
            "them the same"
        )
    return sentences


def _shared(images: Images, others: Images) -> list[tuple[int, int]]:
    """Return positions of equal images in both; one pair for each fingerprint, up to a bound."""
    _, own, their = np.intersect1d(images.fingerprints, others.fingerprints, return_indices=True)
    pairs = zip(own[:_COMPARED].tolist(), their[:_COMPARED].tolist(), strict=True)
    return [(i, j) for i, j in pairs if images[i][0].equal(others[j][0])]


def _counts(data: Data) -> dict[str, NDArray[np.int64]]:
    """Return the numbers of images of each class `[n_classes]` by split."""
    return {split: np.bincount(getattr(data, split).labels, minlength=len(data.labels)) for split in SPLITS}
