import numpy as np
import pytest
from sklearn.datasets import load_digits

from ofa.core.errors import DataError
from ofa.data import load
from ofa.data.config import DataConfig
from ofa.data.load import load_data

SPLITS = ("train", "validation", "test")


def all_pixels(images):
    return [tuple(image.flatten().tolist()) for image, _ in images]


def all_labels(images):
    return np.array([label for _, label in images])


def test_splits_of_the_digits_hold_every_image_once(digits):
    plain = [tuple(np.rint(image.flatten() * (255 / 16)).astype(int).tolist()) for image in load_digits().images]
    together = [pixels for split in SPLITS for pixels in all_pixels(getattr(digits, split))]
    assert sorted(together) == sorted(plain)
    assert len(set(plain)) == len(plain)  # so no image is in two splits


@pytest.mark.parametrize("split", SPLITS)
def test_digits_keep_their_labels(digits, split):
    label_of = dict(
        zip((tuple(image.flatten().tolist()) for image in load_digits().images), load_digits().target, strict=True)
    )
    for image, label in getattr(digits, split):
        assert label_of[tuple(np.rint(image.numpy().flatten() * (16 / 255)).tolist())] == label
    assert digits.labels == tuple("0123456789")


def test_splits_of_the_digits_are_stratified(digits):
    remaining = np.bincount(load_digits().target)
    for split, percent in ((digits.test, 20), (digits.validation, 15)):
        counts = np.bincount(all_labels(split), minlength=10)
        assert np.abs(counts - remaining * percent / 100).max() <= 0.5
        remaining -= counts
    assert np.array_equal(np.bincount(all_labels(digits.train)), remaining)


def test_the_same_configuration_gives_the_same_splits(digits):
    again = load_data(DataConfig(name="digits"))
    for split in SPLITS:
        assert all_pixels(getattr(again, split)) == all_pixels(getattr(digits, split))


def test_a_folder_that_cannot_be_listed_is_one_error(monkeypatch):
    def refuse(_):
        raise PermissionError("[Errno 13] Permission denied: 'pets'")

    monkeypatch.setattr(load, "load_plugin", lambda *_: refuse)
    with pytest.raises(DataError, match=r"cannot read the data set 'image_folder': .* Permission denied: 'pets'"):
        load_data(DataConfig(name="image_folder", folder="pets"))
