"""The batches that training and evaluation read: normalized floats `[batch, channels, resolution, resolution]`."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

from ofa.core.errors import DataError
from ofa.data.config import AugmentConfig
from ofa.data.dataset import Data, Images
from ofa.data.transforms import pil_image, resize_center_crop, seed_generators, seeded, training_transform

Batches = Sequence[tuple[Tensor, Tensor]]


def train_batches(
    data: Data,
    augment: AugmentConfig,
    *,
    resolution: Callable[[int], int],
    batch_size: int,
    seed: int,
    epoch: int,
    start: int = 0,
    part: slice = slice(None),
    workers: int = 0,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield one epoch of shuffled, augmented batches; a last, smaller batch is dropped.

    The order of images depends on the seed and the epoch alone, and the augmentation of an image on these and its
    index. So a resumed epoch continues as the whole one does, and any number of processes can share an epoch.

    `resolution` maps the number of a batch in the epoch to the height and width of its images in pixels. Batches come
    from number `start` on, and of each only the images in `part`. `workers` processes load images; with 0, this one
    does. An image that cannot be read is a DataError.
    """
    order = np.random.default_rng((seed, epoch)).permutation(len(data.train))
    batches = order[: len(order) // batch_size * batch_size].reshape(-1, batch_size)[:, part]
    dataset = _AugmentedImages(data, augment, seed, epoch)
    loader = DataLoader(
        dataset,
        batch_sampler=([(i, resolution(n)) for i in batches[n].tolist()] for n in range(start, len(batches))),
        num_workers=workers,
        collate_fn=dataset.batch,
        generator=torch.Generator(),  # the loader draws a seed, by default from the global generator
    )
    try:
        yield from loader
    except DataError as error:  # that of a worker process ends with its message, after a traceback
        raise DataError(str(error).rpartition(f"{DataError.__name__}: ")[2]) from error


def eval_batches(
    data: Data, images: Images, resolution: int, *, batch_size: int = 250, limit: int | None = None
) -> list[tuple[Tensor, Tensor]]:
    """Return batches as deployed networks see images, in memory to be used for many networks.

    Args:
        data: the data set, which has the normalization.
        images: one of its splits.
        resolution: height and width of the images in pixels.
        batch_size: the largest number of images per batch; sizes differ by at most one, so that each batch has the
            same weight in an average.
        limit: if given, only so many images, evenly spread over the split.

    Raises:
        DataError: an image cannot be read.
    """
    positions = np.arange(len(images))
    if limit is not None and limit < len(images):
        positions = np.linspace(0, len(images) - 1, limit).astype(np.int64)
    batches = []
    for part in np.array_split(positions, -(-len(positions) // batch_size)):
        pairs = [images[i] for i in part.tolist()]
        batch = torch.stack([resize_center_crop(image.float(), resolution) for image, _ in pairs])
        batches.append((data.normalize(batch), torch.tensor([label for _, label in pairs])))
    return batches


class _AugmentedImages(Dataset[tuple[Tensor, Tensor]]):
    def __init__(self, data: Data, config: AugmentConfig, seed: int, epoch: int) -> None:
        self.data, self.config, self.seed, self.epoch = data, config, seed, epoch

    def __getitems__(self, batch: list[tuple[int, int]]) -> list[tuple[Tensor, int]]:
        """Return the images of a batch, given as `(index, resolution)`; restoring generators for each takes longer."""
        augmented = []
        with seeded(self.seed, self.epoch):
            for index, resolution in batch:
                image, label = self.data.train[index]
                transform = training_transform(self.config, resolution, mean=self.data.mean, std=self.data.std)
                seed_generators(self.seed, self.epoch, index)
                augmented.append((transform(pil_image(image)), label))
        return augmented

    def batch(self, pairs: list[tuple[Tensor, int]]) -> tuple[Tensor, Tensor]:
        """Return normalized images `[batch, channels, height, width]` and labels `[batch]`."""
        images, labels = default_collate(pairs)
        return self.data.normalize(images) if images.dtype == torch.uint8 else images, labels
