import numpy as np
import pytest
import torch

from ofa.predict.predictor import Measured


@pytest.fixture
def fitted(create, samples, space):
    predictor = create("gp", warp="none", features={"size": lambda rows: 2.0 + rows.sum(axis=1)})
    return predictor.fit(*samples), space.sample(30, np.random.default_rng(1))


def covariance(predictor, a, b):
    parameters = {
        name.removeprefix("parameters."): torch.from_numpy(x)
        for name, x in predictor.state.items()
        if name.startswith("parameters.")
    }
    inputs = [predictor._inputs(predictor.state, rows) for rows in (a, b)]
    return predictor._kernel(*inputs, parameters).numpy(), float(parameters["noise"].exp())


def test_means_and_deviations_are_those_of_textbook_formulas(fitted, samples):
    predictor, new = fitted
    rows, measured = samples
    (known, noise), (across, _), (own, _) = (
        covariance(predictor, *pair) for pair in ((rows, rows), (new, rows), (new, new))
    )
    inverse = np.linalg.inv(known + (noise + 1e-6) * np.eye(len(rows)))
    scores = predictor.warp(measured)
    found = predictor._predict(new)
    assert found.mean == pytest.approx(across @ inverse @ scores, abs=1e-6)
    assert found.std == pytest.approx(np.sqrt(np.diag(own - across @ inverse @ across.T) + noise), rel=1e-5)


def test_draws_have_the_covariances_of_textbook_formulas(fitted, samples):
    predictor, new = fitted
    predictor.calibration = 2.0
    (known, noise), (across, _), (own, _) = (
        covariance(predictor, *pair) for pair in ((samples[0], samples[0]), (new, samples[0]), (new, new))
    )
    inverse = np.linalg.inv(known + (noise + 1e-6) * np.eye(len(known)))
    expected = 4 * (own - across @ inverse @ across.T + noise * np.eye(len(new)))
    found = np.cov(predictor.warp(predictor.draw(new, 20_000, np.random.default_rng(0))), rowvar=False)
    assert found == pytest.approx(expected, abs=0.05 * expected.max())


def test_covariances_are_symmetric_and_positive(fitted, samples):
    known, _ = covariance(fitted[0], samples[0], samples[0])
    assert known == pytest.approx(known.T)
    assert np.linalg.eigvalsh(known).min() > -1e-9


def test_leaving_one_out_is_the_same_as_removing_it(fitted, samples):
    predictor, _ = fitted
    rows, measured = samples
    scores = predictor.warp(measured)
    state, left_out = predictor._fit(Measured(rows, scores, np.zeros(len(rows))))
    predictor.state = state
    known, noise = covariance(predictor, rows, rows)
    for i in (0, 17, 59):
        others = np.arange(len(rows)) != i
        inverse = np.linalg.inv(known[np.ix_(others, others)] + (noise + 1e-6) * np.eye(len(rows) - 1))
        assert left_out.mean[i] == pytest.approx(known[i, others] @ inverse @ scores[others], abs=1e-6)


def test_the_parameters_fit_better_than_where_they_started(create, samples):
    rows, measured = samples
    likelihoods = []
    for steps in (1, 40):
        predictor = create("gp", warp="none", steps=steps).fit(rows, measured)
        known, noise = covariance(predictor, rows, rows)
        total = known + noise * np.eye(len(rows))
        scores = predictor.warp(measured)
        _, log_determinant = np.linalg.slogdet(total)
        likelihoods.append(-0.5 * scores @ np.linalg.solve(total, scores) - 0.5 * log_determinant)
    assert likelihoods[1] > likelihoods[0] + 1


def test_of_more_archs_than_it_can_take_it_draws_some(create, space, additive):
    rows = space.unique(space.sample(200, np.random.default_rng(2)))
    predictor = create("gp", max_archs=50).fit(rows, additive(rows))
    assert predictor.state["rows"].shape == (50, len(space.choices))
    assert np.corrcoef(predictor(rows), additive(rows))[0, 1] > 0.8
    assert len(predictor.cross_validated().mean) == len(rows)
