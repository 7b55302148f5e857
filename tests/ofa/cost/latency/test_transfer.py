import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import DotProduct, WhiteKernel

import ofa.cost.latency.transfer as module
from ofa import Choice, SearchSpace
from ofa.core.errors import TableError
from ofa.cost.latency.transfer import Networks, Transfer
from ofa.predict.encoding import Encoding

CHOICES = [Choice(f"layer{i}.operation", (0, 1, 2, 3)) for i in range(5)]
SPACE = SearchSpace(CHOICES)
ROWS = np.stack([*SPACE.enumerate()])


def latencies(seed, noise=0.0):
    """Latencies in ms of all archs on a made-up device: two kinds of devices, with costs of their own beside them."""
    rng, kinds = np.random.default_rng(seed), np.random.default_rng(99).uniform(0.2, 2, (2, 5, 4))
    costs = 1.5 * kinds[seed % 2] + 0.5 * kinds[1 - seed % 2] * rng.random() + 0.2 * rng.random((5, 4))
    latency_ms = 1 + costs[np.arange(5), ROWS].sum(axis=1)
    return rng.uniform(0.5, 20) * latency_ms * (1 + noise * rng.standard_normal(len(ROWS)))


def others(n_devices=4, n_networks=150, noise=0.0):
    rng = np.random.default_rng(0)
    drawn = [rng.permutation(len(ROWS))[:n_networks] for _ in range(n_devices)]
    return [Networks(ROWS[one], latencies(seed, noise)[one]) for seed, one in enumerate(drawn)]


@pytest.fixture(scope="module")
def transfer():
    return Transfer(Encoding(SPACE), others(noise=0.01))


@pytest.mark.parametrize("device", [10, 11])
def test_ten_networks_tell_what_takes_many_without_other_devices(transfer, device):
    latency_ms = latencies(device)
    chosen = transfer.choose(10, ROWS)
    predicted = transfer.fit(Networks(ROWS[chosen], latency_ms[chosen])).predict(ROWS)
    assert spearmanr(predicted.mean, latency_ms).statistic > 0.97
    error = np.mean(np.abs(predicted.mean / latency_ms - 1))
    assert error < 0.03
    one_hot = Encoding(SPACE).one_hot
    alone = GaussianProcessRegressor(DotProduct() + WhiteKernel(0.01), normalize_y=True, optimizer=None)
    alone.fit(one_hot(ROWS[chosen]), latency_ms[chosen])
    assert error < 0.7 * np.mean(np.abs(alone.predict(one_hot(ROWS)) / latency_ms - 1))


def test_intervals_hold_their_share_and_are_narrower_with_more_networks(transfer):
    inside, widths = [], {}
    for n in (6, 20):
        for device in (10, 11):
            latency_ms = latencies(device, noise=0.01)
            chosen = transfer.choose(n, ROWS)
            mean, low, high = transfer.fit(Networks(ROWS[chosen], latency_ms[chosen])).predict(ROWS)
            inside.append(np.mean((low <= latency_ms) & (latency_ms <= high)))
            widths.setdefault(n, []).append(np.mean((high - low) / mean))
    assert np.mean(inside) > 0.85
    assert np.mean(widths[20]) < np.mean(widths[6])


def test_the_posterior_is_that_of_the_formula(transfer):
    inputs, parameters = transfer.inputs(ROWS[:200]), transfer._sets[1]
    targets = torch.from_numpy(np.random.default_rng(0).normal(size=8))
    mean, std = module._Mixture(inputs.part(np.arange(8)), targets, [parameters])(inputs)
    covariance = module._kernel(inputs, inputs, parameters).numpy()
    noise = float(parameters["noise"].exp())
    measured = covariance[:8, :8] + (noise + module._LEAST_NOISE) * np.eye(8)
    cross = covariance[:, :8]
    np.testing.assert_allclose(mean, cross @ np.linalg.solve(measured, targets.numpy()), rtol=1e-6, atol=1e-8)
    variance = np.diag(covariance - cross @ np.linalg.solve(measured, cross.T)) + noise
    np.testing.assert_allclose(std, np.sqrt(variance), rtol=1e-6)
    assert np.linalg.eigvalsh(covariance).min() > -1e-8


def test_sets_are_weighted_by_how_likely_they_make_the_measured_networks(transfer):
    inputs = transfer.inputs(ROWS[:30])
    targets = torch.from_numpy(np.random.default_rng(0).normal(size=30))
    shares = module._Mixture(inputs, targets, transfer._sets)._shares
    density = []
    for parameters in transfer._sets:
        covariance = module._kernel(inputs, inputs, parameters) + (
            parameters["noise"].exp() + module._LEAST_NOISE
        ) * torch.eye(30)
        normal = torch.distributions.MultivariateNormal(torch.zeros(30).double(), covariance)
        density.append(normal.log_prob(targets))
    assert torch.allclose(shares, torch.stack(density).softmax(0))
    assert len(shares) == 5


def test_the_first_network_chosen_leaves_the_least_variance(transfer):
    inputs = transfer.inputs(ROWS[np.random.default_rng(3).permutation(len(ROWS))[:40]])
    parameters = transfer._sets[0]
    covariance, noise = module._kernel(inputs, inputs, parameters).numpy(), float(parameters["noise"].exp())

    def left(chosen):
        measured = covariance[np.ix_(chosen, chosen)] + noise * np.eye(len(chosen))
        return np.trace(covariance - covariance[:, chosen] @ np.linalg.solve(measured, covariance[chosen]))

    chosen = module._most_telling(inputs, 30, 3, parameters).tolist()
    assert len(set(chosen)) == 3
    for i in range(3):
        best = min(
            (left([*chosen[:i], candidate]), candidate) for candidate in range(30) if candidate not in chosen[:i]
        )
        assert best[1] == chosen[i]


def test_the_same_seed_gives_the_same_predictions_and_the_global_generator_is_left():
    state = torch.get_rng_state()
    few = Networks(ROWS[::100], latencies(10)[::100])
    first, second = (Transfer(Encoding(SPACE), others(2, 60), seed=4).fit(few)(ROWS[:50]) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert torch.equal(torch.get_rng_state(), state)


def test_other_devices_may_have_different_numbers_of_networks():
    known = [Networks(one.rows[:n], one.latency_ms[:n]) for one, n in zip(others(3), (20, 60, 150), strict=True)]
    transfer, latency_ms = Transfer(Encoding(SPACE), known), latencies(10)
    chosen = transfer.choose(10, ROWS)
    fitted = transfer.fit(Networks(ROWS[chosen], latency_ms[chosen]))
    assert spearmanr(fitted(ROWS), latency_ms).statistic > 0.9


def test_a_single_other_device_is_enough():
    latency_ms = latencies(2)
    transfer = Transfer(Encoding(SPACE), others(1))
    chosen = transfer.choose(12, ROWS)
    fitted = transfer.fit(Networks(ROWS[chosen], latency_ms[chosen]))
    assert spearmanr(fitted(ROWS), latency_ms).statistic > 0.95


def test_features_are_read():
    """A cost that no sum of counts tells: the product of two choices."""

    def area(rows):
        return 1.0 + rows[:, 0] * rows[:, 1] ** 2

    latency_ms, errors = 7 * area(ROWS) + 2 * ROWS[:, 2], []
    known = [Networks(ROWS[::7], (1 + k) * area(ROWS[::7]) + ROWS[::7, 2] * k) for k in range(2)]
    for features in ({}, {"area": area}):
        transfer = Transfer(Encoding(SPACE, features), known)
        chosen = transfer.choose(8, ROWS)
        predicted_ms = transfer.fit(Networks(ROWS[chosen], latency_ms[chosen]))(ROWS)
        errors.append(np.mean(np.abs(predicted_ms - latency_ms)))
    assert errors[1] < 0.6 * errors[0]


def test_latencies_are_above_zero(transfer):
    few = Networks(ROWS[[0, 500, 1000]], np.array([0.001, 9.0, 20.0]))
    mean, low, high = transfer.fit(few).predict(ROWS)
    assert (low >= 1e-5).all()
    assert ((low <= mean) & (mean <= high)).all()


@pytest.mark.parametrize("known", [[], [Networks(ROWS[:9], np.ones(9))]])
def test_other_devices_need_networks(known):
    with pytest.raises(TableError, match="tables of other devices with 10 networks or more each"):
        Transfer(Encoding(SPACE), known)


def test_a_new_device_needs_two_networks(transfer):
    with pytest.raises(TableError, match="two networks or more, not 1; measure about ten"):
        transfer.fit(Networks(ROWS[:1], np.ones(1)))


def test_no_more_networks_are_chosen_than_there_are(transfer):
    assert sorted(transfer.choose(10, ROWS[:6])) == list(range(6))
