"""The batches that training and evaluation read: normalized floats `[batch, channels, resolution, resolution]`."""

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from functools import partial
from itertools import groupby
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL.Image import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ofa.core.errors import DataError
from ofa.data.config import AugmentConfig
from ofa.data.dataset import Data
from ofa.data.device_augment import Crop, Crops, augmented, packed, random_crop
from ofa.data.images import Images, evenly, positions_by_label
from ofa.data.transforms import (
    needed_side,
    one_seed,
    resize_center_crop,
    seed_generators,
    seeded,
    training_transform,
)

Batch = tuple[Tensor, Tensor]
"""Images and their labels `[batch]`."""
Batches = Sequence[Batch]
Augmented = Image | Tensor | Crop
T = TypeVar("T")
CPU = torch.device("cpu")
_EVAL_BATCH, _EVAL_VALUES = 250, 2**22
"""Images in a batch for evaluation, and values of their pixels, at most."""
_FLOAT_BYTES = 4


def train_batches(
    data: Data,
    augment: AugmentConfig,
    *,
    resolution: Callable[[int], int],
    batch_size: int,
    seed: int,
    steps: range,
    part: slice = slice(None),
    workers: int = 0,
    device: torch.device = CPU,
) -> Generator[Batch, None, None]:
    """Yield the shuffled, augmented batches of some steps of a training; an epoch's last, smaller batch is dropped.

    The order of images depends on the seed and the epoch alone, and the augmentation of an image on these and its
    index. So a resumed training continues as the whole one does, and any number of processes can share it.

    `resolution` maps a step to the height and width of its images in pixels. Of each batch come the images in `part`,
    on the device. `workers` processes load images, over all epochs, and are at most a few batches ahead; with 0, this
    one does. An image that cannot be read is a DataError.
    """
    dataset = AugmentedImages(data, augment, seed)
    loader = DataLoader(
        dataset,
        batch_sampler=_numbered(data, resolution, batch_size, seed, steps, part),  # can be read once
        num_workers=workers,
        collate_fn=_stacked,
        pin_memory=device.type == "cuda",
        generator=torch.Generator(),  # the loader draws a seed, by default from the global generator
    )
    for images, labels in _reraised(loader):
        yield _on_device(data, images, device), labels.to(device, non_blocking=True)


def _on_device(data: Data, images: Tensor | Crops, device: torch.device) -> Tensor:
    if isinstance(images, Crops):
        return augmented(images, device, data.normalize)
    moved = images.to(device, non_blocking=True)  # bytes: a quarter of what floats take
    return data.normalize(moved) if moved.dtype == torch.uint8 else moved


def _numbered(
    data: Data, resolution: Callable[[int], int], batch_size: int, seed: int, steps: range, part: slice
) -> Iterator[list[tuple[int, int, int]]]:
    """Yield epoch, index and resolution of the images of each step's batch."""
    steps_per_epoch = len(data.train) // batch_size
    for epoch, own in groupby(steps, lambda step: step // steps_per_epoch):
        order = _order(data, np.random.default_rng((seed, epoch)))
        for step in own:
            start, size = step % steps_per_epoch * batch_size, resolution(step)
            yield [(epoch, i, size) for i in order[start : start + batch_size][part].tolist()]


def _order(data: Data, rng: np.random.Generator) -> NDArray[np.int64]:
    """Return the positions of an epoch's training images."""
    n = len(data.train)
    if data.sampler == "shuffled":
        return rng.permutation(n)
    of_classes = [own for own in positions_by_label(data.train.labels.numpy()) if len(own)]
    n_each = -(-n // len(of_classes))
    repeated = [
        np.concatenate([rng.permutation(own) for _ in range(-(-n_each // len(own)))])[:n_each] for own in of_classes
    ]
    return rng.permutation(np.concatenate(repeated))[:n]


class EvalBatches(Sequence[Batch]):
    """Batches as deployed networks see images: resized, cropped, normalized.

    Batches are prepared when they are read. The first ones stay in memory, as many as `data.cache_mib` allows; the
    others are prepared again whenever they are read, by `data.workers` processes where all are read in turn.

    Args:
        data: the data set, which has the normalization.
        images: one of its splits.
        resolution: height and width of the images in pixels.
        positions: positions in `images` of each batch's images.
    """

    def __init__(self, data: Data, images: Images, resolution: int, positions: Sequence[NDArray[np.int64]]) -> None:
        self._prepared = _PreparedImages(data, images, resolution, positions)
        self._workers, self._kept = data.workers, dict[int, Batch]()
        sizes = np.cumsum([len(part) for part in positions]) * data.in_channels * resolution**2 * _FLOAT_BYTES
        self._n_kept = int(np.searchsorted(sizes, data.cache_mib * 2**20, side="right"))

    @property
    def in_memory(self) -> bool:
        """Whether all batches stay in memory once they were read."""
        return self._n_kept >= len(self)

    def __len__(self) -> int:
        return len(self._prepared)

    def __getitem__(self, i: Any) -> Any:  # Sequence's type has slices, too
        numbers = range(len(self))[i]
        return [self._read(n) for n in numbers] if isinstance(i, slice) else self._read(numbers)

    def __iter__(self) -> Iterator[Batch]:
        missing = [n for n in range(len(self)) if n not in self._kept]
        loader = DataLoader(
            self._prepared,
            batch_size=None,
            sampler=missing,
            num_workers=self._workers,
            collate_fn=tuple,
            generator=torch.Generator(),  # the loader draws a seed, by default from the global generator
        )
        prepared = dict.fromkeys(missing, _reraised(loader))
        for n in range(len(self)):
            yield self._keep(n, next(prepared[n])) if n in prepared else self._kept[n]

    def _read(self, n: int) -> Batch:
        return self._kept[n] if n in self._kept else self._keep(n, self._prepared[n])

    def _keep(self, n: int, batch: Batch) -> Batch:
        if n < self._n_kept:
            self._kept[n] = batch
        return batch


def eval_batches(
    data: Data, images: Images, resolution: int, *, batch_size: int | None = None, limit: int | None = None
) -> EvalBatches:
    """Return batches as deployed networks see images, to be used for many networks.

    Args:
        data: the data set, which has the normalization.
        images: one of its splits.
        resolution: height and width of the images in pixels.
        batch_size: the largest number of images per batch; sizes differ by at most one, so that each batch has the
            same weight in an average. By default 250, and fewer of large images.
        limit: if given, only so many images, evenly spread over the split.

    An image that cannot be read is a DataError when its batch is.
    """
    positions = evenly(len(images), len(images) if limit is None else limit)
    if batch_size is None:
        batch_size = max(1, min(_EVAL_BATCH, _EVAL_VALUES // (data.in_channels * resolution**2)))
    return EvalBatches(data, images, resolution, np.array_split(positions, -(-len(positions) // batch_size)))


class _PreparedImages(Dataset[Batch]):
    """Batches by number, each prepared when it is read."""

    def __init__(self, data: Data, images: Images, resolution: int, positions: Sequence[NDArray[np.int64]]) -> None:
        self.data, self.images, self.resolution, self.positions = data, images, resolution, positions

    def __len__(self) -> int:
        return len(self.positions)

    def __getitem__(self, n: int) -> Batch:
        pairs = [self.images[i] for i in self.positions[n].tolist()]
        batch = torch.stack([resize_center_crop(image.float(), self.resolution) for image, _ in pairs])
        return self.data.normalize(batch), torch.tensor([label for _, label in pairs])


def _stacked(images: list[tuple[Augmented, int]]) -> tuple[Tensor | Crops, Tensor]:
    """Return one batch. In memory it is `[batch, height, width, channels]`, as pictures are and as most train."""
    every, labels = zip(*images, strict=True)
    first = every[0]
    if isinstance(first, Crop):
        return packed(list(every)), torch.tensor(labels)
    if isinstance(first, Tensor):
        return torch.stack(every).contiguous(memory_format=torch.channels_last), torch.tensor(labels)
    pixels = torch.empty((len(every), first.height, first.width, len(first.getbands())), dtype=torch.uint8)
    for row, picture in zip(pixels.numpy(), every, strict=True):
        row[:] = np.asarray(picture).reshape(row.shape)
    return pixels.permute(0, 3, 1, 2), torch.tensor(labels)


def _reraised(loader: Iterable[T]) -> Iterator[T]:
    """Yield batches; of a worker's DataError, which comes with a traceback, the message alone is raised."""
    try:
        yield from loader
    except DataError as error:
        raise DataError(str(error).rpartition(f"{DataError.__name__}: ")[2]) from error


class AugmentedImages(Dataset[tuple[Augmented, int]]):
    """Training images by epoch, index and resolution, each augmented by a seed of its own.

    Images are pictures; normalized tensors `[channels, height, width]` where parts of them are erased; or crops if the
    rest is done on the device.
    """

    def __init__(self, data: Data, config: AugmentConfig, seed: int) -> None:
        self.data, self.config, self.seed = data, config, seed

    def __getitems__(self, batch: list[tuple[int, int, int]]) -> list[tuple[Augmented, int]]:
        """Return the images of a batch and their labels; restoring generators for each image takes longer."""
        data, images = self.data, list[tuple[Augmented, int]]()
        transforms = {
            resolution: self._transform(resolution) for resolution in {resolution for *_, resolution in batch}
        }
        sides = {resolution: partial(needed_side, self.config, resolution) for resolution in transforms}
        seeds = [one_seed(self.seed, epoch, index) for epoch, index, _ in batch]  # faster than between images
        with seeded(self.seed):
            for seed, (_, index, resolution) in zip(seeds, batch, strict=True):
                seed_generators(seed)
                picture = data.train.picture(index, sides[resolution])
                images.append((transforms[resolution](picture), int(data.train.labels[index])))
        return images

    def _transform(self, resolution: int) -> Callable[[Image], Augmented]:
        if self.config.on_device:
            return random_crop(self.config, resolution)
        transform: Callable[[Image], Augmented] = training_transform(
            self.config, resolution, mean=self.data.mean, std=self.data.std
        )
        return transform
