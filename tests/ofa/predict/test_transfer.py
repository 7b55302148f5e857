import numpy as np
import pytest
from scipy.stats import kendalltau

import ofa
from ofa.core.errors import CheckpointError, PredictorError
from ofa.space.choice import Choice
from ofa.space.search_space import SearchSpace


@pytest.fixture(scope="module")
def other_data(additive, space):
    """Accuracies on other data: mostly those of the first, on another scale, with parts of their own."""
    parts = np.random.default_rng(6).uniform(0, 0.4, size=space.one_hot(space.rows([space.largest])).shape[1])
    return lambda rows: np.exp((additive(rows) + space.one_hot(rows) @ parts) / 20)


@pytest.fixture(scope="module")
def earlier(create, space, additive):
    rows = space.unique(space.sample(220, np.random.default_rng(1)))[:200]
    return create("ridge").fit(rows, additive(rows))


@pytest.fixture(scope="module")
def archs(space):
    return space.unique(space.sample(400, np.random.default_rng(2)))


@pytest.mark.parametrize("name", ["gp", "auto"])
def test_an_earlier_predictor_saves_archs(create, name, earlier, other_data, archs):
    measured, few = other_data(archs), archs[:15]
    alone = create(name).fit(few, measured[:15])
    started = create(name, start_from=[earlier]).fit(few, measured[:15])
    taus = [kendalltau(one(archs[15:]), measured[15:]).statistic for one in (alone, started)]
    assert taus[1] > taus[0] + 0.1
    assert taus[1] > 0.75
    assert started.shares[0] > 0.5


def test_one_that_tells_nothing_gets_no_share(create, additive, archs):
    rng = np.random.default_rng(3)
    useless = create("ridge").fit(archs[:60], rng.normal(70, 1, 60))
    opposite = create("ridge").fit(archs, -additive(archs))
    started = create("ridge", start_from=[useless, opposite]).fit(archs[:100], additive(archs[:100]))
    assert started.shares[0] < 0.3
    assert started.shares[1] == 0
    assert kendalltau(started(archs[100:]), additive(archs[100:])).statistic > 0.75


def test_the_answer_is_that_of_the_earlier_ones_and_of_the_rest(create, earlier, other_data, archs):
    started = create("ridge", start_from=[earlier]).fit(archs[:40], other_data(archs[:40]))
    scores = started.shares[0] * earlier.warp(earlier(archs)) + started.rest(archs)
    np.testing.assert_allclose(started(archs), started.warp.inverse(scores), rtol=1e-10)


def test_intervals_hold_their_share(create, earlier, other_data, archs):
    measured = other_data(archs)
    _, low, high = create("gp", start_from=[earlier]).fit(archs[:50], measured[:50]).predict(archs[50:])
    assert 0.75 < np.mean((low <= measured[50:]) & (measured[50:] <= high)) <= 1


def test_one_can_start_from_one_that_started_from_another_and_is_saved_with_it(
    create, earlier, other_data, archs, space, tmp_path
):
    size = {"size": lambda rows: 1.0 + rows.sum(axis=1)}
    second = create("ridge", features=size, start_from=[earlier]).fit(archs[:40], other_data(archs[:40]))
    third = create("auto", start_from=[second], seed=3).fit(archs[:30], other_data(archs[:30]) ** 2)
    third.save(tmp_path / "p.safetensors")
    again = ofa.predict.load(tmp_path / "p.safetensors", space, features=size)
    np.testing.assert_array_equal(again.predict(archs), third.predict(archs))
    assert again.earlier[0].earlier[0].seed == earlier.seed
    with pytest.raises(CheckpointError, match="reads size; give these features"):
        ofa.predict.load(tmp_path / "p.safetensors", space)


def test_predictors_to_start_from_must_be_fitted_and_of_the_space(create, earlier):
    other = SearchSpace([Choice("resolution", (16, 32)), Choice("a", (1, 2))])
    with pytest.raises(PredictorError, match="was not fitted, or to another space; start from fitted ones"):
        create("ridge", start_from=[create("ridge")])
    with pytest.raises(PredictorError, match="was not fitted, or to another space"):
        create("ridge", other, start_from=[earlier])
