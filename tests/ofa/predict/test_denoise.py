import numpy as np
import pytest
from scipy.stats import kendalltau

from ofa.predict.denoise import denoised_percent, estimate_percent, model_rmse_percent


def rmse(values, true):
    return float(np.sqrt(np.mean((values - true) ** 2)))


@pytest.mark.parametrize("seed", range(3))
def test_losses_reduce_the_noise_of_accuracies_that_follow_them(seed):
    """Networks differ in the margin of the right answer; each sees the same few images."""
    rng = np.random.default_rng(seed)
    network_margin = rng.uniform(1.5, 2.5, (200, 1))
    margin = network_margin + rng.logistic(0, 1, (1, 20_000)) + rng.logistic(0, 0.3, (200, 20_000))
    percent, loss = 100.0 * (margin > 0), np.log1p(np.exp(-margin))
    n_images = 500
    measured, true = percent[:, :n_images].mean(axis=1), percent[:, n_images:].mean(axis=1)
    denoised = denoised_percent(measured, loss[:, :n_images].mean(axis=1), n_images)
    gain = kendalltau(denoised, true).statistic - kendalltau(measured, true).statistic
    assert gain > 0.03
    assert denoised.mean() == pytest.approx(measured.mean(), abs=0.1)


def test_losses_that_do_not_explain_accuracies_leave_them_as_they_are():
    rng = np.random.default_rng(0)
    measured, n_images = rng.uniform(60, 90, 100), 10_000  # differences are far above the noise of so many images
    for loss in (rng.uniform(0, 1, 100), np.full(100, 0.5)):
        assert np.abs(denoised_percent(measured, loss, n_images) - measured).max() < 0.2


def test_accuracies_that_scatter_as_much_as_the_noise_are_replaced_by_their_fit():
    rng = np.random.default_rng(0)
    loss, n_images = rng.uniform(0.5, 1.5, 3000), 100
    true = 90 - 20 * loss
    measured = 100 * rng.binomial(n_images, true / 100) / n_images
    denoised = denoised_percent(measured, loss, n_images)
    assert rmse(denoised, true) < 0.15 * rmse(measured, true)
    assert rmse(denoised, np.polyval(np.polyfit(loss, measured, 1), loss)) < 0.15 * rmse(measured, true)


def test_an_estimate_weights_measurement_and_prediction_better_than_any_fixed_weight():
    """In a simulation in which true accuracies scatter around predictions."""
    rng = np.random.default_rng(0)
    n_images, scatter = 400, 1.0
    predicted = rng.uniform(85, 95, 4000)
    true = predicted + rng.normal(0, scatter, 4000)
    measured = 100 * rng.binomial(n_images, true / 100) / n_images
    rmse_percent = model_rmse_percent(measured, predicted, n_images)
    assert abs(rmse_percent - scatter) < 0.1
    estimate = estimate_percent(measured, predicted, n_images=n_images, model_rmse_percent=rmse_percent)
    best_fixed = min(rmse(predicted + w * (measured - predicted), true) for w in np.linspace(0, 1, 101))
    assert rmse(estimate, true) <= best_fixed < 0.95 * min(rmse(measured, true), rmse(predicted, true))


def test_an_estimate_trusts_many_images_and_distrusts_few():
    few, many = (
        float(estimate_percent(np.array([100.0]), np.array([90.0]), n_images=n, model_rmse_percent=2.0)[0])
        for n in (10, 10**6)
    )
    assert 90 < few < 91.5
    assert many > 99.9


def test_an_estimate_of_equal_variances_is_halfway():
    """At 80 % and 400 images, the binomial standard deviation is 2 points."""
    estimate = estimate_percent(np.array([90.0]), np.array([80.0]), n_images=400, model_rmse_percent=2.0)
    assert estimate == pytest.approx([85], abs=0.05)


def test_the_error_of_a_predictor_is_never_below_a_tenth_of_the_noise_variance():
    """At 80 % and 400 images, the variance of the noise is 4."""
    predicted = np.full(10, 80.0)
    assert model_rmse_percent(predicted, predicted, 400) == pytest.approx(0.4**0.5, rel=0.01)
    assert model_rmse_percent(predicted + 5, predicted, 400) == pytest.approx((25 - 4) ** 0.5, rel=0.01)


@pytest.mark.parametrize("percent", [0.0, 100.0, 130.0, -20.0])
def test_predictions_at_the_ends_of_the_scale_keep_some_noise(percent):
    estimate = estimate_percent(np.array([50.0]), np.array([percent]), n_images=100, model_rmse_percent=1.0)
    assert min(50, percent) < float(estimate[0]) < max(50, percent)
