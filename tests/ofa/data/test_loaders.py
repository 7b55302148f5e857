import os
import random
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
import torch
from timm.data import create_transform
from torchvision.transforms.functional import to_pil_image

from ofa.core.errors import DataError
from ofa.data.config import AugmentConfig, DataConfig
from ofa.data.dataset import Data
from ofa.data.images import TensorImages
from ofa.data.load import load_data
from ofa.data.loaders import eval_batches, train_batches
from ofa.data.transforms import resize_center_crop, seeded
from tests.ofa.data.conftest import Counted

DIGITS = DataConfig(name="digits")


def test_evaluation_batches_hold_all_images_in_order(digits):
    batches = eval_batches(digits, digits.validation, 12, batch_size=100)
    sizes = [len(labels) for _, labels in batches]
    assert len(sizes) == 3
    assert 0 <= max(sizes) - min(sizes) <= 1  # so that each weighs the same in BatchNorm statistics
    images, labels = (torch.cat(parts) for parts in zip(*batches, strict=True))
    assert labels.tolist() == digits.validation.labels.tolist()
    assert images.shape[1:] == (1, 12, 12)
    for i in (0, 150, len(images) - 1):
        image = digits.validation[i][0].float()
        torch.testing.assert_close(images[i], digits.normalize(resize_center_crop(image, 12)))


def test_limited_batches_spread_over_the_split(digits):
    n = len(digits.test)
    (batch,) = eval_batches(digits, digits.test, 8, limit=5)
    positions = [0, (n - 1) // 4, (n - 1) // 2, 3 * (n - 1) // 4, n - 1]
    assert batch[1].tolist() == [digits.test[i][1] for i in positions]
    assert sum(len(labels) for _, labels in eval_batches(digits, digits.test, 8, limit=10**6)) == n


@pytest.mark.parametrize("cache_mib", [0, 1])
@pytest.mark.parametrize("workers", [0, 2])
def test_batches_do_not_depend_on_what_stays_in_memory_or_who_prepares_them(digits, cache_mib, workers):
    bounded = replace(digits, cache_mib=cache_mib, workers=workers)
    batches = eval_batches(bounded, digits.train, 24, batch_size=100)
    assert not batches.in_memory  # 1222 images of 24x24 floats take 2.5 MiB
    everything = eval_batches(digits, digits.train, 24, batch_size=100)
    assert everything.in_memory
    for _ in range(2):
        assert same(list(batches), list(everything))
    assert same(batches[3:5], everything[3:5])
    assert same([batches[-1]], [everything[len(batches) - 1]])


@pytest.mark.parametrize(("cache_mib", "kept"), [(0, 0), (1, 4), (256, 12)])
def test_as_many_batches_stay_in_memory_as_the_bound_allows(digits, cache_mib, kept):
    images = Counted(digits.train)
    batches = eval_batches(replace(digits, cache_mib=cache_mib), images, 24, batch_size=105)
    assert len(batches) == 12
    first, second = iter(batches), iter(batches)  # two passes at once
    assert same([next(first), next(second), *first, *second], [next(iter(batches))] * 2 + [*batches[1:]] * 2)
    images.n_read = 0
    list(batches)
    assert images.n_read == pytest.approx(len(images) * (1 - kept / 12), abs=10)


@pytest.mark.parametrize(("resolution", "largest"), [(8, 250), (224, 83)])
def test_batches_of_large_images_are_smaller(digits, resolution, largest):
    assert max(map(len, eval_batches(digits, digits.train, resolution)._prepared.positions)) <= largest


# Training batches


def batches_of(data, config=DIGITS, resolution=16, batch_size=200, seed=3, epoch=1, start=0):
    n = len(data.train) // batch_size
    steps = range(epoch * n + start, (epoch + 1) * n)
    options = {"batch_size": batch_size, "seed": seed, "steps": steps, "workers": config.workers}
    return list(train_batches(data, config.augment, resolution=lambda step: resolution, **options))


def same(first, second):
    return len(first) == len(second) and all(
        torch.equal(a, b) for pair in zip(first, second, strict=True) for a, b in zip(*pair, strict=True)
    )


def test_training_batches_depend_on_the_seed_and_the_epoch_alone(digits):
    first = batches_of(digits)
    torch.manual_seed(99)
    assert same(first, batches_of(digits))
    assert not same(first, batches_of(digits, seed=4))
    assert not same(first, batches_of(digits, epoch=2))


def test_an_image_is_augmented_differently_for_every_seed_and_epoch(digits):
    one_of_each = replace(digits, train=digits.train.subset(np.unique(digits.train.labels, return_index=True)[1]))
    seen = []
    for seed, epoch in ((0, 0), (0, 1), (1, 0)):
        config = DataConfig(name="digits", augment=AugmentConfig(hflip=0.5, erase=0.5))
        ((images, labels),) = batches_of(one_of_each, config, batch_size=10, seed=seed, epoch=epoch)
        seen.append(images[labels.argsort()])
    for first, second in combinations(seen, 2):
        assert sum(torch.equal(a, b) for a, b in zip(first, second, strict=True)) <= 3  # by chance


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    "augment", [AugmentConfig(hflip=0.5), AugmentConfig(erase=0.9), AugmentConfig(auto_augment="3a")]
)
def test_a_batch_holds_what_timm_makes_of_each_image(augment, channels):
    pixels = np.random.default_rng(0).integers(0, 256, (6, 20, 18, channels), dtype=np.uint8)
    images = TensorImages(torch.from_numpy(pixels).permute(0, 3, 1, 2), torch.arange(6))
    data = Data("random", tuple("abcdef"), train=images, validation=images, test=images)
    ((batch, labels),) = batches_of(data, DataConfig(name="digits", augment=augment), batch_size=6)
    transform = create_transform(
        16,
        is_training=True,
        scale=augment.scale,
        ratio=augment.ratio,
        hflip=augment.hflip,
        color_jitter=None,
        auto_augment=augment.auto_augment,
        interpolation="bilinear",
        mean=data.mean,
        std=data.std,
        re_prob=augment.erase,
    )
    for image, label in zip(batch, labels.tolist(), strict=True):
        with seeded(3, 1, label):
            expected = transform(to_pil_image(images.images[label]))
        assert torch.equal(image, expected)


def test_an_epoch_from_a_later_start_continues_as_the_whole_one_does(digits):
    whole = batches_of(digits)
    for start in (1, len(whole) - 1, len(whole)):
        assert same(whole[start:], batches_of(digits, start=start))


def test_the_epochs_of_a_training_are_those_that_are_read_alone(digits):
    n = len(digits.train) // 200
    options = {"resolution": lambda _: 16, "batch_size": 200, "seed": 3}
    whole = list(train_batches(digits, DIGITS.augment, steps=range(2, 2 * n + 1), **options))
    assert same(whole, [*batches_of(digits, epoch=0, start=2), *batches_of(digits), batches_of(digits, epoch=2)[0]])


class ReadBy:
    """Images whose pixels tell the process that reads them."""

    def __init__(self, n):
        self.n = n

    def __len__(self):
        return self.n

    def __getitem__(self, i):
        return np.full((4, 4), os.getpid() % 256, np.uint8), i % 2


def test_workers_stay_over_epochs():
    data = Data("processes", train=ReadBy(8), validation=ReadBy(8), test=ReadBy(8), mean=(0.0,), std=(1.0,))
    whole = AugmentConfig(scale=(1.0, 1.0), ratio=(1.0, 1.0))
    options = {"resolution": lambda _: 4, "batch_size": 4, "seed": 0, "workers": 2}
    batches = train_batches(data, whole, steps=range(12), **options)
    assert len({int(images[0, 0, 0, 0] * 255) for images, _ in batches}) == 2


def test_batches_do_not_depend_on_workers(digits):
    config = DataConfig(name="digits", workers=1, augment=AugmentConfig(hflip=0.5, erase=0.5))
    main = config.model_copy(update={"workers": 0})
    assert same(batches_of(digits, config), batches_of(digits, main))


def test_an_epoch_has_every_image_at_most_once_in_batches_of_one_size(digits):
    config = DataConfig(name="digits", augment=AugmentConfig(scale=(1.0, 1.0), ratio=(1.0, 1.0)))
    batches = batches_of(digits, config, resolution=8)
    assert {len(labels) for _, labels in batches} == {200}
    assert len(batches) == len(digits.train) // 200
    mean, std = digits.mean[0], digits.std[0]
    pixels = [
        tuple(np.rint((image.numpy() * std + mean).flatten() * 255).astype(int))
        for images, _ in batches
        for image in images
    ]
    labels = [int(label) for _, labels in batches for label in labels]
    label_of = dict(zip(map(tuple, digits.train.images.flatten(1).tolist()), digits.train.labels.tolist(), strict=True))
    assert len(set(pixels)) == len(pixels)
    assert [label_of[image] for image in pixels] == labels


def generators():
    return repr(random.getstate()), repr(np.random.get_state()), torch.get_rng_state().tolist()  # noqa: NPY002


@pytest.mark.parametrize("workers", [0, 1])
def test_the_global_generators_are_restored(digits, workers):
    before = generators()
    batches_of(digits, DataConfig(name="digits", workers=workers, augment=AugmentConfig(hflip=0.5)), batch_size=600)
    assert generators() == before


@pytest.mark.parametrize("policy", ["rand-m9-mstd0.5-inc1", "augmix-m3", "original"])
def test_policies_of_timm_augment_gray_images(digits, policy):
    config = DataConfig(name="digits", augment=AugmentConfig(auto_augment=policy, erase=0.5))
    (images, _), *_ = batches_of(digits, config, batch_size=400)
    assert images.shape == (400, 1, 16, 16)
    assert images.isfinite().all()
    assert not torch.equal(images, batches_of(digits, batch_size=400)[0][0])


def test_images_of_different_sizes_share_a_batch(digits):
    noise = torch.Generator().manual_seed(1)
    sized = [(torch.randint(256, (1, 10 + i, 14 - i), generator=noise).byte(), i % 2) for i in range(8)]
    data = replace(digits, train=sized, validation=sized)
    ((images, labels),) = batches_of(data, batch_size=8)
    assert images.shape == (8, 1, 16, 16)
    assert sorted(labels.tolist()) == [0, 0, 0, 0, 1, 1, 1, 1]
    ((images, _),) = eval_batches(data, data.validation, 8)
    torch.testing.assert_close(images[1], data.normalize(resize_center_crop(sized[1][0].float(), 8)))


def test_each_batch_has_its_own_resolution_and_processes_share_its_images(digits):
    augment = AugmentConfig(hflip=0.5, erase=0.5)

    def batches(first=8, **options):
        def resolution(step):
            return [8, 12, 16, 20][step - 8]

        steps = range(first, 12)
        return list(
            train_batches(digits, augment, resolution=resolution, batch_size=300, seed=1, steps=steps, **options)
        )

    whole, parts = batches(), [batches(9, part=slice(rank, None, 2)) for rank in range(2)]
    assert [images.shape[-1] for images, _ in whole] == [8, 12, 16, 20]
    for (images, labels), *halves in zip(whole[1:], *parts, strict=True):
        for rank, (some, their_labels) in enumerate(halves):
            assert torch.equal(some, images[rank::2])
            assert torch.equal(their_labels, labels[rank::2])


@pytest.mark.parametrize("workers", [0, 1])
def test_a_broken_image_is_one_short_error(tmp_path, fill, workers):
    data = load_data(DataConfig(name="image_folder", folder=fill(tmp_path / "pets")))
    for path in (tmp_path / "pets").glob("*/*.png"):
        path.write_bytes(b"broken")
    config = DataConfig(name="image_folder", folder=tmp_path / "pets", workers=workers)
    with pytest.raises(DataError, match=r"^cannot read the image [^\n]*png \([^\n]*\); repair or remove it$"):
        batches_of(data, config, batch_size=4)
    with pytest.raises(DataError, match=r"^cannot read the image [^\n]*repair or remove it$"):
        list(eval_batches(replace(data, workers=workers), data.test, 8, batch_size=2))
