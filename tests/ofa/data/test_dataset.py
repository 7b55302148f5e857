import json
from dataclasses import asdict, replace
from itertools import permutations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ofa.core.errors import DataError
from ofa.data.dataset import Data, DataInfo
from ofa.data.images import TensorImages
from ofa.data.splits import split_by_class

SPLITS = ("train", "validation", "test")


def tensor_images(n=6, channels=2, seed=0, n_classes=2):
    pixels = torch.randint(256, (n, channels, 5, 4), generator=torch.Generator().manual_seed(seed)).byte()
    return TensorImages(pixels, torch.arange(n) % n_classes)


@pytest.fixture
def data():
    splits = {split: tensor_images(seed=seed) for seed, split in enumerate(SPLITS)}
    return Data("pets", ("cat", "dog"), **splits)


# Labels


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize(("label", "problem"), [(-1, "and labels count from 0"), (2, "but 2 classes: cat, dog")])
def test_a_label_of_no_class_is_one_error_that_names_it(split, label, problem):
    splits = {one: tensor_images(seed=seed) for seed, one in enumerate(SPLITS)}
    splits[split].labels[3] = label
    with pytest.raises(DataError, match=f"'pets' has the label {label} in {split}, {problem}; mend the labels, or"):
        Data("pets", ("cat", "dog"), **splits)


def test_a_split_without_images_is_one_error():
    with pytest.raises(DataError, match="'pets' has no images in test; add some"):
        Data("pets", ("cat", "dog"), train=tensor_images(), validation=tensor_images(), test=tensor_images(0))


# Normalization


def test_the_mean_and_the_standard_deviation_are_those_of_all_training_pixels(data):
    pixels = data.train.images.transpose(0, 1).flatten(1).double() / 255
    assert data.mean == pytest.approx(pixels.mean(dim=1).tolist(), rel=1e-12)
    assert data.std == pytest.approx(pixels.std(dim=1).tolist(), rel=1e-12)
    assert data.in_channels == 2


def test_they_come_from_1000_images_spread_over_all():
    dark, bright = (torch.full((n, 1, 2, 2), value, dtype=torch.uint8) for n, value in ((1500, 0), (500, 200)))
    images = TensorImages(torch.cat([dark, bright]), torch.arange(2000) % 2)
    data = Data("shades", ("a", "b"), **dict.fromkeys(SPLITS, images))
    assert data.mean[0] == pytest.approx(0.25 * 200 / 255, rel=1e-2)
    assert 4000 * data.std[0] ** 2 / 3999 == pytest.approx(0.1875 * (200 / 255) ** 2, rel=1e-2)


def test_images_of_different_sizes_weigh_by_their_pixels():
    sized = [(torch.full((1, 2, 2), 0).byte(), 0), (torch.full((1, 4, 3), 255).byte(), 1)]
    data = Data("sizes", ("a", "b"), **dict.fromkeys(SPLITS, sized))
    assert data.mean == (12 / 16,)
    assert data.std == pytest.approx((np.std([0] * 4 + [1] * 12, ddof=1),))


def test_normalized_training_images_have_mean_0_and_deviation_1(digits):
    images = torch.stack([image.float() for image, _ in digits.train])
    normal = digits.normalize(images)
    assert abs(normal.double().mean().item()) < 0.02  # the mean is that of 1000 images
    assert normal.double().std().item() == pytest.approx(1, abs=0.02)
    plain = (images[3, 0, 2, 5].item() / 255 - digits.mean[0]) / digits.std[0]
    assert normal[3, 0, 2, 5].item() == pytest.approx(plain, rel=1e-5)


def test_channels_are_normalized_each_by_its_own_values(data):
    image, _ = data.test[1]
    normal = data.normalize(image)
    for channel in range(2):
        plain = (image[channel] / 255 - data.mean[channel]) / data.std[channel]
        torch.testing.assert_close(normal[channel], plain.float())


@pytest.mark.parametrize("order", list(permutations(range(4))))
@pytest.mark.parametrize("kind", [torch.uint8, torch.float32])
@pytest.mark.parametrize("size", [(5, 4), (150, 149)])
def test_normalized_values_do_not_depend_on_the_layout_in_memory(data, order, kind, size):
    images = torch.randint(0, 256, (3, 2, *size), generator=torch.Generator().manual_seed(0)).to(kind)
    laid_out = images.permute(order).contiguous().permute([order.index(dim) for dim in range(4)])
    assert torch.equal(data.normalize(laid_out), data.normalize(images))
    assert torch.equal(laid_out, images)  # unchanged


def test_a_single_class_or_a_constant_channel_is_refused():
    images = tensor_images()
    with pytest.raises(DataError, match=r"data set 'pets' has the classes \('cat',\); a classifier needs at least two"):
        Data("pets", ("cat",), **dict.fromkeys(SPLITS, images))
    images.images[:, 1] = 7
    with pytest.raises(DataError, match="data set 'pets' has a constant channel; there is nothing to learn from"):
        Data("pets", ("cat", "dog"), **dict.fromkeys(SPLITS, images))


# What a run records


def test_the_record_of_a_data_set_holds_its_header_and_the_sizes_of_its_splits(data):
    data = replace(data, train=tensor_images(12), validation=tensor_images(4), test=tensor_images(8))
    info = data.info
    for name in ("name", "labels", "mean", "std", "in_channels"):
        assert getattr(info, name) == getattr(data, name)
    assert (info.n_train, info.n_validation, info.n_test) == (12, 4, 8)


def test_the_record_survives_a_round_trip_through_json(data):
    assert DataInfo.from_json(json.dumps(asdict(data.info))) == data.info


@pytest.mark.parametrize("change", ["a pixel", "a label", "the shape", "two splits swapped", "an image moved"])
def test_the_digest_changes_with_the_images(data, change):
    train = tensor_images()
    if change == "a pixel":
        train.images[5, 1, 4, 3] ^= 1
    elif change == "a label":
        train.labels[5] ^= 1
    elif change == "the shape":
        train = TensorImages(train.images.reshape(6, 2, 4, 5), train.labels)
    changed = replace(data, train=train)
    if change == "two splits swapped":
        changed = replace(data, validation=data.test, test=data.validation)
    elif change == "an image moved":
        changed = replace(data, train=train.subset(np.arange(5)), validation=tensor_images(7, seed=1))
    assert changed.info.digest != data.info.digest


def test_the_digest_of_equal_images_is_equal(data):
    copy = replace(data, train=tensor_images().subset(np.arange(6)))
    assert copy.info == data.info


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "{}", "null", '{"name": "pets"}']
    + [
        f'{{"name": {name}, "labels": {labels}, "mean": [0.5], "std": [0.5], "n_train": {n}, "n_validation": 1, '
        f'"n_test": 1, "digest": "a"}}'
        for name, labels, n in (("3", '["a"]', "1"), ('"a"', "3", "1"), ('"a"', '["a"]', '"1"'))
    ],
)
def test_text_that_does_not_describe_a_data_set_is_refused(text):
    with pytest.raises(DataError, match="does not describe a data set"):
        DataInfo.from_json(text)


def test_the_repr_is_short_however_many_images_there_are(data):
    assert (
        repr(replace(data, train=tensor_images(500)))
        == "Data('pets', 2 classes, 500 train, 6 validation, 6 test images)"
    )


# Splits


@given(st.lists(st.integers(2, 30), min_size=1, max_size=5), st.floats(0.1, 40), st.randoms())
def test_both_parts_hold_every_class_in_the_same_shares_and_every_image_once(sizes, percent, random):
    labels = [label for label, size in enumerate(sizes) for _ in range(size)]
    random.shuffle(labels)
    labels = np.array(labels)
    first, second = split_by_class(labels, percent)
    assert sorted([*first, *second]) == list(range(len(labels)))
    assert (np.diff(first) > 0).all()
    assert (np.diff(second) > 0).all()
    for label, size in enumerate(sizes):
        assert np.count_nonzero(labels[second] == label) == max(1, round(size * percent / 100))


def test_the_second_part_is_drawn_at_random_and_the_same_each_time():
    labels = np.zeros(1000, dtype=int)
    _, second = split_by_class(labels, 20)
    assert np.array_equal(second, split_by_class(labels, 20)[1])
    assert 400 < second.mean() < 600
    assert len(set(np.diff(second).tolist())) > 5


@pytest.mark.parametrize(("names", "name"), [((), "1"), (("cat", "emu"), "emu")])
@pytest.mark.parametrize("labels", [[0, 0, 0, 1], [0, 0, 0, 2, 2]])
def test_a_class_of_fewer_than_two_images_is_refused(labels, names, name):
    with pytest.raises(DataError, match=f"class '?{name}'? has too few images to split; every class needs at least 3"):
        split_by_class(np.array(labels), 20, names)
