"""Tasks of the comparison: families, images and archs."""

from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np

import ofa
from ofa.data.config import AugmentConfig, DataConfig
from ofa.data.dataset import Data
from ofa.data.images import Images, TensorImages

N_TRAIN, N_VALIDATION = 2_000, 1_000
"""Images, chosen on another seed: on 1,000 training images, networks trained alone hardly differ from each other."""
DATA = DataConfig(name="fashion_mnist", augment=AugmentConfig(scale=(0.85, 1.0), ratio=(0.9, 1.11), hflip=0.5))


@dataclass(frozen=True)
class Task:
    """A family with its options, the epochs of each training, and the number of archs that are trained alone."""

    family: str
    options: dict[str, Any]
    epochs: int
    n_alone: int

    def create_family(self) -> ofa.Family:
        """Create the family for Fashion-MNIST."""
        return ofa.create_family(self.family, num_classes=10, in_channels=1, **self.options)


TASKS = {
    "cnn": Task("small_mobilenet_v3", {"resolutions": [12, 16, 20, 24], "width_mult": 0.5}, epochs=80, n_alone=20),
    "hybrid": Task("hybrid_small", {"resolutions": [12, 16]}, epochs=80, n_alone=8),
}


@cache
def load_data() -> Data:
    """Return Fashion-MNIST with some of its training and validation images and all of its test images."""
    data, rng = ofa.load_data(DATA), np.random.default_rng(0)

    def some(images: Images, n: int) -> Images:
        assert isinstance(images, TensorImages)
        return images.subset(np.sort(rng.permutation(len(images))[:n]))

    return replace(data, train=some(data.train, N_TRAIN), validation=some(data.validation, N_VALIDATION))


def spread_archs(family: ofa.Family, n: int) -> list[ofa.Arch]:
    """Return the smallest arch, the largest, and `n - 2` between them at even distances in log MACs."""
    space, macs_m = family.space, ofa.macs_m(family)
    pool = space.sample(2000, np.random.default_rng(11))
    low, high = np.log(macs_m(space.rows([space.smallest, space.largest])))
    targets = np.linspace(low, high, n)[1:-1]
    nearest = np.abs(np.log(macs_m(pool)) - targets[:, None]).argmin(axis=1)
    return [space.smallest, *map(space.decode, pool[nearest]), space.largest]


def random_archs(family: ofa.Family) -> list[ofa.Arch]:
    """Return 50 random archs, the same for every strategy and seed."""
    return [family.space.decode(row) for row in family.space.sample(50, np.random.default_rng(12))]
