import numpy as np
import pytest

from ofa.space.choice import Choice
from ofa.space.search_space import SearchSpace


@pytest.fixture(scope="session")
def twelve():
    """12 archs: 3 * (1 + 3)."""
    choices = [Choice("a", (1, 2, 3)), Choice("depth", (1, 2)), Choice("deep", (1, 2, 3), needs=("depth", 2))]
    return SearchSpace(choices)


@pytest.fixture(scope="session")
def space():
    """Small enough to evaluate every arch: 3 * (9 + 9^2 + 9^3) = 2457 archs."""
    choices = [Choice("resolution", (16, 24, 32)), Choice("depth", (1, 2, 3))]
    for b in range(3):
        needs = ("depth", b + 1) if b else None
        choices += [Choice(f"{b}.kernel", (3, 5, 7), needs), Choice(f"{b}.expand", (2, 4, 6), needs)]
    return SearchSpace(choices)


def linear(space, seed=0):
    """A function of archs to which each value of each choice contributes its own part."""
    n_features = space.one_hot(space.rows([space.smallest])).shape[1]
    weights = np.random.default_rng((3, seed)).normal(size=n_features)
    return lambda rows: (space.one_hot(rows) * weights).sum(axis=1)  # a product would round by the number of rows
