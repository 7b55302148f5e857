"""Images as networks see them: resized and cropped for evaluation, augmented by timm for training."""

import math
import random
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from itertools import chain
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from timm.data import create_transform
from timm.data.transforms import RandomResizedCropAndInterpolation
from torch import Tensor
from torchvision.transforms.v2 import functional as transforms

from ofa.data.config import AugmentConfig


def resize_center_crop(images: Tensor, resolution: int) -> Tensor:
    """Scale the shorter side of float images `[..., height, width]` to the resolution and crop the center.

    The interpolation is bilinear and antialiased.
    """
    if images.shape[-2:] == (resolution, resolution):
        return images
    scaled = transforms.resize(images, [resolution], antialias=True)
    cropped: Tensor = transforms.center_crop(scaled, [resolution, resolution])
    return cropped


def needed_side(config: AugmentConfig, resolution: int, picture: Image.Image) -> int:
    """Return the shorter side at which the next random crop of a picture has as many pixels as the resolution.

    It draws the crop that `training_transform` draws next from Python's generator, and leaves that as it was.
    """
    shorter = min(picture.size)
    if shorter < 2 * resolution:  # half of it is too small for any crop
        return shorter
    state = random.getstate()
    _, _, height, width = RandomResizedCropAndInterpolation.get_params(picture, config.scale, config.ratio)
    random.setstate(state)
    side: int = math.ceil(shorter * resolution / min(height, width))
    return side


@cache
def training_transform(
    config: AugmentConfig, resolution: int, *, mean: tuple[float, ...], std: tuple[float, ...]
) -> Any:
    """Return timm's transform from a PIL image to an augmented one.

    Where parts of it are erased, which fills them with the mean, it ends with a normalized tensor `[channels, height,
    width]`. Otherwise it ends with a PIL image: normalizing a whole batch takes a fraction of the time.
    """
    transform = create_transform(
        resolution,
        is_training=True,
        scale=config.scale,
        ratio=config.ratio,
        hflip=config.hflip,
        color_jitter=None,  # type: ignore[arg-type]  # timm takes None
        auto_augment=config.auto_augment,
        interpolation="bilinear",
        mean=mean,
        std=std,
        normalize=config.erase > 0,
        re_prob=config.erase,
    )
    if config.erase == 0:
        transform.transforms.pop()  # what makes a tensor of it
    for step in transform.transforms:
        for operation in chain(getattr(step, "ops", ()), *getattr(step, "policy", ())):
            if operation.name.startswith("Posterize"):
                operation.aug_fn = _posterize
    return transform


def _posterize(image: Image.Image, bits: int, **_: Any) -> Image.Image:
    """Keep the highest bits of each pixel. timm asks for 0 bits at times, which Pillow refuses."""
    if bits == 0:
        return Image.new(image.mode, image.size)
    return ImageOps.posterize(image, bits)


@contextmanager
def seeded(*seeds: int) -> Iterator[None]:
    """Seed the global generators, which augmentation draws from, and restore their states at the end."""
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    try:
        seed_generators(one_seed(*seeds))
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])  # noqa: NPY002
        torch.set_rng_state(states[2])


def one_seed(*seeds: int) -> int:
    """Return a seed that depends on all of the given ones."""
    return int(np.random.SeedSequence(seeds).generate_state(1)[0])


def seed_generators(seed: int) -> None:
    """Seed the global generators of Python, NumPy and torch."""
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    torch.default_generator.manual_seed(seed)  # torch.manual_seed also records the call for GPUs, which takes longer
