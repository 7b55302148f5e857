import numpy as np
import pytest
from scipy.stats import norm

from ofa.core.prediction import Prediction
from ofa.predict.metrics import TOP, judge, rank_correlation


def test_metrics_compare_predictions_with_measurements():
    rng = np.random.default_rng(0)
    measured = rng.normal(70, 2, 30)
    predicted = measured + rng.normal(0, 1, 30)
    metrics = judge(Prediction(predicted, predicted - 1, predicted + 1), measured)
    signs = [np.sign((predicted[i] - predicted[j]) * (measured[i] - measured[j])) for i in range(30) for j in range(i)]
    ranks = [np.argsort(np.argsort(values)) for values in (predicted, measured)]
    chosen = sorted(range(30), key=lambda i: -predicted[i])[:TOP]
    assert metrics.kendall_tau == pytest.approx(np.mean(signs))
    assert metrics.spearman == pytest.approx(np.corrcoef(*ranks)[0, 1])
    assert metrics.rmse_percent == pytest.approx(np.sqrt(np.mean((predicted - measured) ** 2)))
    assert metrics.regret_percent == pytest.approx(max(measured) - max(measured[i] for i in chosen))
    assert metrics.coverage_percent == pytest.approx(100 * np.mean(np.abs(predicted - measured) <= 1))
    assert metrics.n_archs == 30
    assert metrics.measured_percent == tuple(measured)
    assert metrics.predicted_percent == tuple(predicted)


def test_intervals_of_true_accuracies_are_judged_beside_the_noise_of_the_measured_ones():
    rng = np.random.default_rng(1)
    true = rng.normal(70, 2, 20_000)
    predicted = true + rng.normal(0, 1, len(true))
    half_width = norm.ppf(0.95)
    prediction = Prediction(predicted, predicted - half_width, predicted + half_width)
    measured = true + rng.normal(0, 2, len(true))
    assert judge(prediction, true).coverage_percent == pytest.approx(90, abs=1)
    assert judge(prediction, measured).coverage_percent < 60
    assert judge(prediction, measured, 2.0).coverage_percent == pytest.approx(90, abs=1)


@pytest.mark.parametrize(
    ("predicted", "measured"), [([1.0], [2.0]), ([1.0, 1.0], [2.0, 3.0]), ([1.0, 2.0], [3.0, 3.0])]
)
def test_nothing_to_rank_is_no_correlation(predicted, measured):
    assert rank_correlation(np.array(predicted), np.array(measured)) == 0
