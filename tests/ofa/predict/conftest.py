import numpy as np
import pytest

import ofa
from ofa.predict.mlp import PredictorConfig


@pytest.fixture(scope="session")
def quick():
    return PredictorConfig(members=2, hidden=8)


@pytest.fixture(scope="session")
def space():
    return ofa.create_family("small_mobilenet_v3").space


@pytest.fixture(scope="session")
def additive(space):
    """Gives accuracies in percent to which every active choice adds its own part."""
    parts = np.random.default_rng(5).uniform(0, 1, size=sum(len(choice.values) for choice in space.choices))
    return lambda rows: (
        60 + np.array([sum(parts[i] for i in np.flatnonzero(one_hot)) for one_hot in space.one_hot(rows)])
    )


@pytest.fixture(scope="session")
def samples(space, additive):
    rows = space.sample(60, np.random.default_rng(0))
    return rows, additive(rows)
