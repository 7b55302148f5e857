"""Tests of the archs of the comparison."""

import numpy as np
import pytest

from benchmarks.training import tasks

TASK = tasks.TASKS["cnn"]


@pytest.fixture(scope="module")
def family():
    return TASK.create_family()


def test_spread_archs_are_nearest_to_even_distances_in_log_macs(family, monkeypatch):
    def macs_m(rows):
        return 2.0 ** (1 + rows.sum(axis=1) / 10)  # cheap to compute, and its logarithm is the sum of the indices

    monkeypatch.setattr(tasks.ofa, "macs_m", lambda _: macs_m)
    archs = tasks.spread_archs(family, 5)
    log_macs = np.log2(macs_m(family.space.rows(archs)))
    low, *between, high = log_macs
    assert (archs[0], archs[-1]) == (family.space.smallest, family.space.largest)
    pool = np.log2(macs_m(family.space.sample(2000, np.random.default_rng(11))))
    for i, each in enumerate(between, 1):
        target = low + i * (high - low) / 4
        assert abs(each - target) == pytest.approx(min(abs(pool - target)))


def test_random_archs_are_the_same_50_each_time(family):
    archs = tasks.random_archs(family)
    assert archs == tasks.random_archs(family)
    assert len(set(archs)) == 50


def test_families_have_the_classes_and_the_channel_of_fashion_mnist(family):
    assert family.options["num_classes"] == 10
    assert family.options["in_channels"] == 1
    assert family.resolutions == (12, 16, 20, 24)
