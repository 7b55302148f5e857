import random

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from PIL import Image
from timm.data.transforms import RandomResizedCropAndInterpolation

from ofa.data.config import AugmentConfig
from ofa.data.transforms import needed_side, one_seed, resize_center_crop, seed_generators, seeded, training_transform


@pytest.mark.parametrize(
    ("height", "width", "resolution", "scaled", "left_top"),
    [
        (8, 8, 24, (24, 24), (0, 0)),
        (40, 40, 16, (16, 16), (0, 0)),
        (40, 60, 16, (24, 16), (4, 0)),
        (60, 30, 20, (20, 40), (0, 10)),
        (24, 24, 24, (24, 24), (0, 0)),
    ],
)
def test_resizing_and_cropping_give_what_pillow_gives(height, width, resolution, scaled, left_top):
    image = np.random.default_rng(0).random((height, width), dtype=np.float32) * 255
    (left, top), whole = left_top, Image.fromarray(image).resize(scaled, Image.Resampling.BILINEAR)
    plain = np.asarray(whole.crop((left, top, left + resolution, top + resolution)))
    assert np.abs(resize_center_crop(torch.from_numpy(image)[None], resolution)[0].numpy() - plain).max() < 1e-3


def test_a_batch_is_resized_as_its_images_are():
    images = torch.rand(3, 2, 20, 30)
    assert torch.equal(resize_center_crop(images, 16)[1], resize_center_crop(images[1], 16))


@pytest.mark.parametrize("policy", ["rand-m10-n8-p1.0-inc1", "rand-m0-n8-p1.0", "augmix-m10", "original", "3a"])
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_every_policy_augments_gray_and_color_images_even_to_0_bits(policy, mode):
    channels = len(mode)
    transform = training_transform(
        AugmentConfig(auto_augment=policy), 16, mean=(0.5,) * channels, std=(0.25,) * channels
    )
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 18, 3), dtype=np.uint8)).convert(mode)
    for seed in range(60):
        with seeded(seed):
            augmented = transform(image)
            assert (augmented.mode, augmented.size) == (mode, (16, 16))


@pytest.mark.parametrize("policy", ["rand-m10-inc1", "rand-m0"])
def test_an_image_without_bits_is_black(policy):
    transform = training_transform(AugmentConfig(auto_augment=policy), 16, mean=(0.5,) * 3, std=(0.25,) * 3)
    (steps,) = [step for step in transform.transforms if hasattr(step, "ops")]
    (posterize,) = [operation for operation in steps.ops if operation.name.startswith("Posterize")]
    posterize.prob, before = 1.0, posterize.prob
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 18, 3), dtype=np.uint8))
    assert not np.asarray(posterize(image)).any()
    posterize.prob = before


def test_posterized_pixels_keep_their_highest_bits():
    transform = training_transform(AugmentConfig(auto_augment="rand-m5-p1.0"), 16, mean=(0.5,) * 3, std=(0.25,) * 3)
    (steps,) = [step for step in transform.transforms if hasattr(step, "ops")]
    (posterize,) = [operation for operation in steps.ops if operation.name == "Posterize"]
    pixels = np.random.default_rng(0).integers(0, 256, (20, 18, 3), dtype=np.uint8)
    assert np.array_equal(np.asarray(posterize(Image.fromarray(pixels))), pixels & 0b11000000)  # magnitude 5 of 10


def states():
    return repr(random.getstate()), repr(np.random.get_state()), torch.get_rng_state().tolist()  # noqa: NPY002


def draw():
    return random.random(), np.random.rand(), torch.rand(1).item()  # noqa: NPY002


def test_seeding_determines_all_global_generators_and_restores_them():
    before = states()
    with seeded(3, 4):
        first = draw()
        seed_generators(one_seed(3, 4))
        assert draw() == first
        seed_generators(one_seed(4, 3))
        assert not set(draw()) & set(first)
    assert states() == before
    with pytest.raises(ZeroDivisionError), seeded(3, 4):
        _ = draw()[0] / 0
    assert states() == before


@given(
    st.integers(8, 100),
    st.floats(0.05, 1.0),
    st.floats(0.5, 1.0),
    st.floats(1.0, 2.0),
    st.floats(1.0, 3.0),
    st.booleans(),
    st.integers(0, 2**31 - 1),
)
def test_no_crop_of_an_image_read_at_a_reduced_scale_is_smaller_than_the_resolution(
    resolution, area, narrow, wide, longer, upright, seed
):
    config = AugmentConfig(scale=(area, 1.0), ratio=(narrow, wide))
    shorter = resolution * 3
    stored = Image.new("L", (shorter, int(shorter * longer)) if upright else (int(shorter * longer), shorter))
    random.seed(seed)
    side = needed_side(config, resolution, stored)
    scale = side / shorter
    assume(scale <= 1)  # an area that small is enlarged at any scale
    _, _, height, width = RandomResizedCropAndInterpolation.get_params(stored, config.scale, config.ratio)
    assert min(height, width) * scale >= resolution
    assert min(height, width) * (side - 1) / shorter < resolution
