import numpy as np
import pytest


@pytest.fixture
def noisy(space, additive):
    rng = np.random.default_rng(0)
    rows = space.unique(space.sample(300, rng))
    return rows, additive(rows) + rng.normal(0, 0.2, len(rows))


def test_weights_are_shares_of_the_candidates(create, noisy):
    predictor = create("auto", candidates=["gp", "ridge"]).fit(noisy[0][:100], noisy[1][:100])
    assert sum(predictor.weights.values()) == pytest.approx(1)
    assert all(0 < weight <= 1 for weight in predictor.weights.values())
    assert set(predictor.weights) <= {"gp", "ridge"}


def test_a_useless_candidate_gets_no_share(create, space):
    rng = np.random.default_rng(1)
    rows = space.unique(space.sample(200, rng))
    # Only the square of a number counts, which no line follows.
    cost = {"cost": lambda rows: np.exp(np.sin(3.0 * rows @ np.arange(1, rows.shape[1] + 1)))}
    accuracy = 70 + np.log(cost["cost"](rows)) ** 2
    predictor = create("auto", features=cost).fit(rows[:150], accuracy[:150])
    assert predictor.weights == {"gp": 1.0}
    assert predictor(rows[150:]) == pytest.approx(accuracy[150:], abs=0.3)


def test_it_predicts_the_weighted_mean_of_its_members(create, noisy):
    rows, accuracy = noisy
    predictor = create("auto", candidates=["gp", "ridge"], warp="none").fit(rows[:40], accuracy[:40])
    expected = sum(weight * predictor.members[name](rows) for name, weight in predictor.weights.items())
    assert predictor(rows) == pytest.approx(expected)


def test_it_is_as_good_as_its_best_candidate(create, noisy):
    rows, accuracy = noisy
    errors = {
        name: np.sqrt(np.mean((create(name).fit(rows[:100], accuracy[:100])(rows[100:]) - accuracy[100:]) ** 2))
        for name in ("auto", "gp", "ridge")
    }
    assert errors["auto"] < 1.1 * min(errors["gp"], errors["ridge"])
