import numpy as np
import pytest
from scipy.stats import kendalltau

from ofa.core.errors import PredictorError
from ofa.predict.precision_drop import PrecisionDrop
from ofa.space.choice import Choice
from ofa.space.search_space import SearchSpace

SPACE = SearchSpace([Choice(f"block{i}", (3, 5, 7)) for i in range(8)])


def true_drop(rows):
    """Two choices matter: the first much, the second less."""
    return 1.0 + 2.0 * (rows[:, 0] == 2) + 0.5 * rows[:, 1]


def measured(n, noise, seed=0):
    rng = np.random.default_rng(seed)
    rows = SPACE.unique(SPACE.sample(n, rng))
    return rows, true_drop(rows) + noise * rng.standard_normal(len(rows))


def test_it_learns_which_choices_cost_accuracy():
    rows, drops = measured(80, noise=0.3)
    others = SPACE.sample(300, np.random.default_rng(1))
    predicted, expected = PrecisionDrop(SPACE, rows, drops)(others), true_drop(others)
    assert np.sqrt(np.mean((predicted - expected) ** 2)) < 0.6 * expected.std()
    assert kendalltau(predicted, expected).statistic > 0.6


def test_at_measured_archs_noise_is_shrunk():
    rows, drops = measured(80, noise=1.0)
    predicted, expected = PrecisionDrop(SPACE, rows, drops)(rows), true_drop(rows)
    assert np.abs(predicted - expected).mean() < 0.8 * np.abs(drops - expected).mean()


def test_drops_that_no_choice_explains_become_their_mean():
    rows, drops = measured(60, noise=0.0)
    drops = np.random.default_rng(3).normal(1.0, 0.5, len(rows))
    predicted = PrecisionDrop(SPACE, rows, drops)(SPACE.sample(200, np.random.default_rng(4)))
    assert np.abs(predicted - drops.mean()).max() < 0.25


@pytest.mark.parametrize("n", [1, 3])
def test_few_archs_give_their_mean(n):
    rows, drops = measured(n, noise=0.1)
    assert PrecisionDrop(SPACE, rows, drops)(rows) == pytest.approx(np.full(len(rows), drops.mean()))


def test_equal_drops_are_predicted_as_they_are():
    rows, _ = measured(20, noise=0.0)
    assert PrecisionDrop(SPACE, rows, np.full(len(rows), 0.25))(rows) == pytest.approx(0.25)


def test_it_is_the_same_each_time():
    rows, drops = measured(30, noise=0.3)
    first, second = (PrecisionDrop(SPACE, rows, drops)(rows) for _ in range(2))
    assert np.array_equal(first, second)


@pytest.mark.parametrize("drops", [np.zeros(0), np.zeros(3), np.array([np.nan, 0.0]), np.array([np.inf, 0.0])])
def test_anything_but_one_finite_drop_for_each_arch_is_refused(drops):
    rows = SPACE.sample(0 if not len(drops) else 2, np.random.default_rng(0))
    with pytest.raises(PredictorError, match="finite accuracy drops"):
        PrecisionDrop(SPACE, rows, drops)
