"""The batches that training and evaluation read.

Batches are float tensors `[batch, channels, resolution, resolution]`, normalized. Evaluation scales the shorter
side to the resolution (bilinear, antialiased) and crops the center. Augmentation is timm's.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as transforms


def resize_center_crop(images: Tensor, resolution: int) -> Tensor:
    """Scales the shorter side of float images `[..., h, w]` to the resolution and crops the center."""
    if images.shape[-2:] == (resolution, resolution):
        return images
    scaled = transforms.resize(images, [resolution], antialias=True)
    cropped: Tensor = transforms.center_crop(scaled, [resolution, resolution])
    return cropped


@contextmanager
def seeded(*seeds: int) -> Iterator[None]:
    """Seeds the global generators, which timm's augmentation draws from, and puts them back."""
    with restored_generators():
        seed_generators(*seeds)
        yield


def seed_generators(*seeds: int) -> None:
    """Seeds the global generators of Python, NumPy and torch."""
    seed = int(np.random.SeedSequence(seeds).generate_state(1)[0])
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    torch.default_generator.manual_seed(seed)  # torch.manual_seed notes the call for GPUs, which takes longer


@contextmanager
def restored_generators() -> Iterator[None]:
    """Puts the global generators back at the end."""
    kept = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    try:
        yield
    finally:
        random.setstate(kept[0])
        np.random.set_state(kept[1])  # noqa: NPY002
        torch.set_rng_state(kept[2])
