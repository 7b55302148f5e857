"""Any `torch.utils.data.Dataset` of labeled images as a store."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import Subset

from ofa.core.errors import DataError
from ofa.data.decode import Decoder, Side, pixels_of, reading
from ofa.data.images import Positions, StoredImages, evenly, short_hash, stored

_LOOKED_AT = 2000
"""Images of a data set whose pixels are part of its digest; they are spread evenly."""


@dataclass(frozen=True, repr=False)
class DatasetStore:
    """Items of a data set: pairs of an image and a label, or mappings with an image.

    An image is a PIL image, an array `[h, w]` or `[h, w, c]`, or a tensor `[c, h, w]`: uint8 from 0 to 255, or floats
    from 0 to 1.

    Attributes:
        dataset: has a length and items by position.
        decoder: what turns an image into pixels.
        key: the key of the image where items are mappings.
    """

    dataset: Any
    decoder: Decoder
    key: str = "image"

    def __repr__(self) -> str:
        return f"items of {type(self.dataset).__name__}"

    def name(self, position: int) -> str:
        """See `Store.name`."""
        return f"{position} of {type(self.dataset).__name__}"

    def picture(self, position: int, side: Side | None = None) -> Image.Image:
        """See `Store.picture`."""
        with reading(self.name(position)):
            image = _image(self.dataset[position], self.key)
            if isinstance(image, Image.Image):
                return self.decoder.picture(image, side)
            return self.decoder.array(_pixels(image))

    def fingerprints(self, positions: Positions) -> NDArray[np.uint64]:
        """See `Store.fingerprints`. Only some images are looked at: a data set may take long to read."""
        hashes = positions.astype(np.uint64)
        for i in evenly(len(positions), _LOOKED_AT).tolist():
            hashes[i] = short_hash(pixels_of(self.picture(int(positions[i]))).numpy().tobytes())
        return hashes


def dataset_images(dataset: Any) -> StoredImages:
    """Return all images of a data set; those of one channel are gray, others color.

    Raises:
        DataError: items are no pairs of an image and a label, or labels no integers from 0 on.
    """
    n = len(dataset)
    if not n:
        raise DataError(f"{type(dataset).__name__} has no items; give at least one")
    with reading(f"0 of {type(dataset).__name__}"):
        image = _image(dataset[0], "image")
        if isinstance(image, Image.Image):
            gray = image.mode in ("1", "L", "LA")
        else:
            pixels = _pixels(image)
            Decoder().array(pixels)  # refuses other shapes
            gray = pixels.ndim == 2 or pixels.shape[2] == 1
    decoder = Decoder(1 if gray else 3)
    return stored(DatasetStore(dataset, decoder), labels_of(dataset))


def labels_of(dataset: Any) -> NDArray[np.int64]:
    """Return the labels `[n]`: its `targets` or `labels` if it has them; otherwise each item is read.

    Raises:
        DataError: they are no integers from 0 on, one for each item.
    """
    if isinstance(dataset, Subset):
        of_subset: NDArray[np.int64] = labels_of(dataset.dataset)[np.asarray(dataset.indices)]
        return of_subset
    for name in ("targets", "labels", "_labels"):
        listed = getattr(dataset, name, None)
        if listed is not None and np.ndim(listed) == 1 and len(listed) == len(dataset):
            break
    else:
        listed = [_label(dataset[i]) for i in range(len(dataset))]
    labels = np.asarray(listed)
    if labels.ndim != 1 or labels.dtype.kind not in "iu" or labels.min() < 0:
        wrong = [value for value in labels.tolist() if type(value) is not int or value < 0][:1]
        raise DataError(
            f"the labels of {type(dataset).__name__} are {labels.dtype} {list(labels.shape)}, such as {wrong}; give "
            "one integer from 0 on for each item, and leave out a split whose images have none"
        )
    return labels.astype(np.int64)


def _image(item: Any, key: str) -> Any:
    if isinstance(item, Mapping):
        return item[key]
    if isinstance(item, tuple | list) and len(item) == 2:
        return item[0]
    raise DataError(f"an item is a {type(item).__name__}; give pairs of an image and a label")


def _label(item: Any) -> Any:
    label = item["label"] if isinstance(item, Mapping) else item[1]
    return label.item() if isinstance(label, Tensor) else label


def _pixels(image: Any) -> NDArray[Any]:
    """Return an array or a tensor as an array with its channels last, floats as uint8."""
    values = np.asarray(image.detach().cpu() if isinstance(image, Tensor) else image)
    if isinstance(image, Tensor) and values.ndim == 3:
        values = values.transpose(1, 2, 0)
    if values.dtype.kind != "f":
        return values
    if not ((values >= 0) & (values <= 1)).all():
        raise ValueError(
            f"its values are {values.dtype} from {values.min():.3g} to {values.max():.3g}; give uint8, or floats from "
            "0 to 1, without normalization"
        )
    pixels: NDArray[Any] = (values * 255).round().astype(np.uint8)
    return pixels
