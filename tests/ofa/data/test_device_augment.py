"""Tests of augmentation on the device, against that of the workers with the same draws."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from ofa.data.config import AugmentConfig
from ofa.data.dataset import Data
from ofa.data.loaders import train_batches
from ofa.data.sheet import sheet

N_IMAGES = 12


def pictures(channels):
    """Smooth images of many sizes, so that rounding is all that differs."""
    rng = np.random.default_rng(0)
    for i in range(N_IMAGES):
        height, width = rng.integers(20, 90, size=2)
        y, x = np.mgrid[:height, :width] / 90
        waves = [np.sin(7 * x + channel) + np.cos(5 * y * (channel + 1)) for channel in range(channels)]
        yield np.round((np.stack(waves, axis=-1) + 2) * 60).astype(np.uint8), i % 2


@pytest.fixture(params=[1, 3])
def data(request):
    return of_channels(request.param)


def of_channels(channels):
    split = list(pictures(channels))
    mean, std = (0.4, 0.5, 0.45)[:channels], (0.2, 0.21, 0.22)[:channels]
    return Data("waves", train=split, validation=split, test=split, mean=mean, std=std)


def batches_of(data, augment, workers=0, resolution=16):
    options = {"batch_size": 4, "seed": 5, "steps": range(6), "workers": workers}
    return list(train_batches(data, augment, resolution=lambda _: resolution, **options))


def both(data, **settings):
    config = AugmentConfig(**settings)
    on_device = config.model_copy(update={"on_device": True})
    return zip(batches_of(data, on_device), batches_of(data, config), strict=True)


@settings(max_examples=15, deadline=None)
@given(
    scale=st.tuples(st.floats(0.05, 1), st.floats(0.05, 1)).map(sorted),
    ratio=st.tuples(st.floats(0.3, 3), st.floats(0.3, 3)).map(sorted),
    hflip=st.sampled_from([0.0, 0.5, 1.0]),
    erase=st.sampled_from([0.0, 0.5, 1.0]),
    channels=st.sampled_from([1, 3]),
)
def test_images_are_those_of_the_workers_but_for_rounding(scale, ratio, hflip, erase, channels):
    data = of_channels(channels)
    level = 1.01 / 255 / min(data.std)
    for (images, labels), (expected, of_workers) in both(data, scale=scale, ratio=ratio, hflip=hflip, erase=erase):
        assert torch.equal(labels, of_workers)
        assert images.shape == expected.shape
        assert float((images - expected).abs().max()) <= level


def test_the_same_parts_are_erased(data):
    for (images, _), (expected, _) in both(data, erase=1.0):
        erased = expected == 0
        assert erased.any()
        assert not images[erased].any()


def test_batches_do_not_depend_on_workers(data):
    augment = AugmentConfig(hflip=0.5, erase=0.5, on_device=True)
    for (images, labels), (other, of_workers) in zip(
        batches_of(data, augment), batches_of(data, augment, workers=2), strict=True
    ):
        assert torch.equal(images, other)
        assert torch.equal(labels, of_workers)


def test_a_policy_is_refused_as_it_works_on_pictures():
    with pytest.raises(ValidationError, match=r"on_device = true goes without auto_augment = rand-m9, whose policies"):
        AugmentConfig(on_device=True, auto_augment="rand-m9")


def test_the_sheet_shows_what_training_sees(data):
    augment = AugmentConfig(hflip=0.5)
    on_device = augment.model_copy(update={"on_device": True})
    named = replace(data, labels=("a", "b"))
    assert sheet(named, on_device, 16).tobytes() == sheet(named, augment, 16).tobytes()
