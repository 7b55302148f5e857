import numpy as np
import pytest

from ofa.predict.denoise import denoised_percent
from ofa.predict.metrics import evaluate
from ofa.predict.mlp import AccuracyPredictor, PredictorConfig


@pytest.fixture
def measured(space, additive):
    rows = space.unique(space.sample(60, np.random.default_rng(2)))[:50]
    top1_percent = additive(rows)
    return rows, top1_percent, 5 - top1_percent / 20 + np.random.default_rng(3).normal(0, 0.01, 50)


def test_metrics_compare_held_out_measurements_with_a_predictor_fitted_to_the_other_archs(
    space, measured, quick, monkeypatch
):
    rows, top1_percent, loss = measured
    fits, fit = [], AccuracyPredictor.fit.__func__

    def spy(cls, space_, fit_rows, targets, **settings):
        fits.append((fit_rows, targets, settings))
        return fit(cls, space_, fit_rows, targets, **settings)

    monkeypatch.setattr(AccuracyPredictor, "fit", classmethod(spy))
    metrics = evaluate(space, rows, top1_percent, loss=loss, n_images=500, config=quick, seed=3)
    ((fit_rows, targets, settings),) = fits
    assert settings == {"config": quick, "seed": 3}
    assert (metrics.n_fit, metrics.n_test) == (40, 10)
    positions = [int(np.flatnonzero((rows == row).all(axis=1))[0]) for row in fit_rows]
    held_out = sorted(set(range(50)) - set(positions))
    assert len(held_out) == 10
    assert np.array_equal(targets, denoised_percent(top1_percent[positions], loss[positions], 500))
    assert sorted(metrics.measured_percent) == sorted(top1_percent[held_out])
    predicted, truth = np.array(metrics.predicted_percent), np.array(metrics.measured_percent)
    again = fit(AccuracyPredictor, space, fit_rows, targets, config=quick, seed=3)(rows[held_out])
    by_measurement = dict(zip(top1_percent[held_out].tolist(), again.tolist(), strict=True))
    assert predicted.tolist() == pytest.approx([by_measurement[value] for value in metrics.measured_percent])
    signs = [np.sign((predicted[i] - predicted[j]) * (truth[i] - truth[j])) for i in range(10) for j in range(i)]
    assert metrics.kendall_tau == pytest.approx(np.mean(signs))
    assert metrics.rmse_percent == pytest.approx(np.sqrt(np.mean((predicted - truth) ** 2)))


def test_the_seed_determines_which_archs_are_held_out(space, measured, quick):
    rows, top1_percent, loss = measured
    first, same, other = (
        evaluate(space, rows, top1_percent, loss=loss, n_images=500, config=quick, seed=seed) for seed in (3, 3, 4)
    )
    assert first == same
    assert set(first.measured_percent) != set(other.measured_percent)


@pytest.mark.parametrize(("test_percent", "n_test"), [(1e-9, 1), (1.0, 1), (50.0, 5)])
def test_the_share_of_held_out_archs_is_configurable(space, measured, test_percent, n_test):
    rows, top1_percent, loss = (part[:10] for part in measured)
    config = PredictorConfig(members=1, hidden=4, test_percent=test_percent)
    metrics = evaluate(space, rows, top1_percent, loss=loss, n_images=500, config=config, seed=0)
    assert (metrics.n_fit, metrics.n_test) == (10 - n_test, n_test)
    if n_test == 1:
        assert metrics.kendall_tau == 0  # a single arch has no rank


def test_equal_accuracies_have_no_rank_correlation(space, measured, quick):
    rows, _, loss = measured
    metrics = evaluate(space, rows, np.full(50, 70.0), loss=loss, n_images=500, config=quick, seed=0)
    assert metrics.kendall_tau == 0
