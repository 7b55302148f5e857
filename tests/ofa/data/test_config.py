import numpy as np
import pytest
from pydantic import ValidationError

from ofa.data.config import AugmentConfig, DataConfig
from ofa.data.load import load_data
from ofa.data.loaders import train_batches

NUMBERS = [0, 1, -1, 0.0, 1.0, -1.0, float("nan"), float("inf"), 10**30, 1e30, True, "1"]


def is_accepted(section, key, value):
    try:
        section(**{key: value} if section is AugmentConfig else {"name": "digits", key: value})
    except ValidationError:
        return False
    return True


@pytest.mark.parametrize(
    ("section", "key", "accepted"),
    [
        (DataConfig, "validation_percent", [1]),
        (DataConfig, "test_percent", [1]),
        (DataConfig, "workers", [0, 1]),
        (AugmentConfig, "hflip", [0, 1]),
        (AugmentConfig, "erase", [0, 1]),
        (AugmentConfig, "mixup", [0, 1]),
        (AugmentConfig, "cutmix", [0, 1]),
    ],
)
def test_numbers_out_of_range_are_refused(section, key, accepted):
    for value in NUMBERS:
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        allowed = is_number and value in accepted and not (key == "workers" and isinstance(value, float))
        assert is_accepted(section, key, value) == allowed, (key, value)


@pytest.mark.parametrize("key", ["scale", "ratio"])
def test_ranges_out_of_range_are_refused(key):
    for low in NUMBERS:
        for high in NUMBERS:
            ends = [isinstance(x, (int, float)) and not isinstance(x, bool) and x == 1 for x in (low, high)]
            assert is_accepted(AugmentConfig, key, [low, high]) == all(ends), (low, high)
    assert is_accepted(AugmentConfig, key, [0.5, 0.5])
    assert not is_accepted(AugmentConfig, key, [0.9, 0.8])
    assert not is_accepted(AugmentConfig, key, [0.9])


@pytest.mark.parametrize(
    "extreme",
    [
        {"scale": [0.01, 0.01], "ratio": [0.1, 10.0]},
        {"scale": [1.0, 1.0], "ratio": [10.0, 10.0]},
        {"hflip": 1.0, "erase": 1.0},
    ],
)
def test_the_ends_of_the_allowed_ranges_work(digits, extreme):
    augment = DataConfig(name="digits", augment=extreme).augment
    images, _ = next(train_batches(digits, augment, resolution=lambda _: 16, batch_size=500, seed=0, steps=range(1)))
    assert images.isfinite().all()


@pytest.mark.parametrize("percent", [1e-9, 40.0])
def test_the_ends_of_the_allowed_shares_work(percent):
    data = load_data(DataConfig(name="digits", validation_percent=percent, test_percent=percent))
    assert min(len(data.validation), len(data.test)) >= 10  # an image of each class


@pytest.mark.parametrize("policy", ["rand-m9-mstd0.5-inc1", "augmix-m3", "original", "v0r", "3a"])
def test_policies_of_timm_are_accepted(policy):
    assert AugmentConfig(auto_augment=policy).auto_augment == policy


@pytest.mark.parametrize("policy", ["random", "rand-m9-x5", "v9", "rand-m0.5"])
def test_policies_that_timm_does_not_know_are_refused(policy):
    with pytest.raises(ValidationError, match="auto_augment"):
        AugmentConfig(auto_augment=policy)


def test_a_folder_may_start_with_the_home_directory(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert DataConfig(name="image_folder", folder="~/pets").folder == tmp_path / "pets"


def test_defaults_pass_their_own_checks():
    assert DataConfig.model_validate(DataConfig(name="digits").model_dump(mode="json")) == DataConfig(name="digits")
    assert np.all(np.diff(AugmentConfig().scale) >= 0)
