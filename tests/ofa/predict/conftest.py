import numpy as np
import pytest

import ofa

QUICK = {
    "auto": {"candidates": ["gp", "ridge"]},
    "gcn": {"members": 2, "hidden": 16, "layers": 2, "steps": 40, "warp": "none", "lr": 0.01},
    "gp": {"steps": 10},
    "mlp": {"members": 2, "hidden": 8},
    "ridge": {"members": 2},
    "summary": {"members": 2, "max_archs": 100, "warp": "none"},
    "transformer": {"members": 2, "hidden": 16, "layers": 1, "steps": 40, "warp": "none", "lr": 0.01},
    "trees": {"members": 2, "trees": 10},
}
"""Settings with which a predictor is fitted in a moment."""


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
    rows = space.unique(space.sample(80, np.random.default_rng(0)))[:60]
    return rows, additive(rows)


@pytest.fixture(scope="session")
def create(space):
    """Creates a predictor by name with quick settings, for the small family's space by default.

    One that reads features alone reads the choices as features.
    """
    choices = {choice: lambda rows, i=i: 1.0 + rows[:, i] for i, choice in enumerate(space.names)}

    def create(name, subject=space, features=None, **settings):
        own = choices if name == "summary" and subject is space else {}
        return ofa.predict.create(name, subject, features=own | (features or {}), **QUICK[name] | settings)

    return create
