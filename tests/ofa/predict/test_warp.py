import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import norm

from ofa.predict.warp import Warp

ACCURACIES = arrays(np.float64, st.integers(2, 40), elements=st.integers(0, 10_000).map(lambda x: x / 100))
SCALES = [Warp.linear, Warp.ranks]


@pytest.mark.parametrize("scale", SCALES)
@given(accuracy=ACCURACIES, others=arrays(np.float64, 20, elements=st.floats(-50, 150)))
def test_a_warp_rises_and_its_inverse_undoes_it(scale, accuracy, others):
    warp = scale(accuracy)
    assert warp.inverse(warp(accuracy)) == pytest.approx(accuracy, abs=1e-6)
    assert warp.inverse(warp(others)) == pytest.approx(others, abs=1e-6)
    rising = np.sort(others)
    assert (np.diff(warp(rising)) >= -1e-12).all()


def test_ranks_get_the_scores_of_a_normal_distribution_however_far_apart_they_are():
    accuracy = np.array([10.0, 90.0, 91.0, 91.5, 91.6])
    assert Warp.ranks(accuracy)(accuracy) == pytest.approx(norm.ppf([0.1, 0.3, 0.5, 0.7, 0.9]))


def test_equal_accuracies_share_a_score():
    accuracy = np.array([1.0, 2.0, 2.0, 3.0])
    assert Warp.ranks(accuracy)(np.array([2.0])) == pytest.approx([0.0], abs=1e-12)


def test_the_linear_scale_has_mean_0_and_deviation_1():
    accuracy = np.random.default_rng(0).normal(70, 5, 100)
    score = Warp.linear(accuracy)(accuracy)
    assert (score.mean(), score.std()) == pytest.approx((0, 1), abs=1e-9)


@pytest.mark.parametrize("scale", SCALES)
def test_the_slope_turns_small_errors_of_accuracies_into_errors_of_scores(scale):
    accuracy = np.random.default_rng(1).normal(70, 5, 2000)
    warp = scale(accuracy)
    inner = np.array([65.0, 70.0, 75.0])
    difference = (warp(inner + 0.5) - warp(inner - 0.5)) / 1.0
    assert warp.slope(inner) == pytest.approx(difference, rel=0.1)
    assert warp.slope(inner) == pytest.approx(np.full(3, 0.2), rel=0.15)
