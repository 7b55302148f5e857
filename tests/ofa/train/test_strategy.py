import numpy as np
import pytest

from ofa.train.strategy import STRATEGIES, full, sandwich


def test_full_is_the_largest_alone(tiny):
    assert full(tiny.space, 3, np.random.default_rng(0)) == [tiny.space.largest]


@pytest.mark.parametrize("n_random", [0, 1, 4])
def test_a_sandwich_has_the_ends_first(tiny, n_random):
    archs = sandwich(tiny.space, n_random, np.random.default_rng(0))
    assert archs[:2] == [tiny.space.largest, tiny.space.smallest]
    assert len(archs) == 2 + n_random
    assert [tiny.space.arch(arch) for arch in archs] == archs


def test_random_archs_follow_the_generator(tiny):
    first, same, other = (sandwich(tiny.space, 5, np.random.default_rng(seed)) for seed in (0, 0, 1))
    assert first == same
    assert first != other
    assert len(set(first)) == 7


@pytest.mark.parametrize("name", sorted(STRATEGIES))
def test_every_strategy_trains_the_largest_first_and_is_repeatable(tiny, name):
    """The largest teaches those that come after it."""
    first, same = (STRATEGIES[name](tiny.space, 2, np.random.default_rng(7)) for _ in range(2))
    assert first[0] == tiny.space.largest
    assert first == same
