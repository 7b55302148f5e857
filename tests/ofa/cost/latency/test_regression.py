import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import spearmanr

from ofa.core.prediction import INTERVAL
from ofa.cost.latency.regression import BlockRegression, Networks

OVERHEAD_MS = 0.1
N_SLOTS, N_CHOICES = 10, 4


def some_blocks(n, seed=0):
    """Latencies of the blocks of networks, NaN in empty slots: a third of the later ones."""
    rng = np.random.default_rng(seed)
    blocks = rng.uniform(0.2, 1.0, (n, N_SLOTS)) * np.linspace(1, 3, N_SLOTS)
    blocks[:, 6:][rng.random((n, 4)) < 0.3] = np.nan
    return blocks


def networks(blocks, resolution=10.0, params_m=1.0, codes=0, choices=0):
    """Networks of these blocks, which are all alike in what is not given."""
    n = len(blocks)
    return Networks(
        blocks_ms=np.nan_to_num(blocks),
        present=~np.isnan(blocks),
        resolution=np.full(n, resolution),
        params_m=np.full(n, params_m),
        blocks=np.zeros((n, N_SLOTS), int) + codes,
        choices=np.zeros((n, N_CHOICES), int) + choices,
    )


def fit(blocks, latency_ms):
    return BlockRegression.fit(networks(blocks), latency_ms, OVERHEAD_MS)


def predict(model, blocks):
    return model.predict(networks(blocks))


def latencies(blocks, weights, extra=0.0, noise=0.0, seed=1):
    """Latencies of networks whose blocks take `weights` times as long as alone, and which take `extra` ms on top."""
    rng = np.random.default_rng(seed)
    plain = OVERHEAD_MS + extra + np.nansum(blocks * weights, axis=1)
    return plain * np.exp(noise * rng.standard_normal(len(blocks)))


def test_where_the_plain_sum_is_right_it_is_the_prediction():
    training, new = some_blocks(30), some_blocks(100, seed=2)
    model = fit(training, latencies(training, 1.0))
    predicted, low, high = predict(model, new)
    assert predicted == pytest.approx(latencies(new, 1.0), rel=1e-3)
    assert np.all(high / low < 1.01)


def test_an_overhead_and_a_factor_are_learned_from_few_networks():
    training, new = some_blocks(8), some_blocks(100, seed=2)
    model = fit(training, latencies(training, 0.8, extra=0.4))
    assert predict(model, new)[0] == pytest.approx(latencies(new, 0.8, extra=0.4), rel=0.01)


@given(st.integers(0, 1000))
def test_a_factor_of_each_slot_is_learned_from_more_networks(seed):
    weights = np.random.default_rng(seed).uniform(0.6, 1.1, N_SLOTS)
    training, new = some_blocks(60, seed), some_blocks(200, seed + 1)
    model = fit(training, latencies(training, weights, noise=0.01))
    true = latencies(new, weights)
    error = np.abs(predict(model, new)[0] / true - 1)
    plain = np.abs((OVERHEAD_MS + np.nansum(new, axis=1)) / true - 1)
    assert error.mean() < 0.02
    assert error.mean() < plain.mean()
    assert spearmanr(predict(model, new)[0], true)[0] > 0.98


@pytest.mark.parametrize("noise", [0.01, 0.05])
@pytest.mark.parametrize("n", [20, 80])
def test_intervals_hold_nine_in_ten_networks(n, noise):
    held = []
    for seed in range(40):
        weights = np.random.default_rng(seed).uniform(0.8, 1.1, N_SLOTS)
        training, new = some_blocks(n, seed), some_blocks(100, seed + 100)
        model = fit(training, latencies(training, weights, noise=noise, seed=seed))
        predicted, low, high = predict(model, new)
        measured = latencies(new, weights, noise=noise, seed=seed + 1000)
        assert np.all((low < predicted) & (predicted < high))
        held.append(np.mean((low < measured) & (measured < high)))
    assert np.mean(held) == pytest.approx(INTERVAL, abs=0.04)


def test_networks_unlike_the_training_ones_have_wider_intervals():
    training, weights = some_blocks(40), np.linspace(0.7, 1.1, N_SLOTS)
    model = fit(training, latencies(training, weights, noise=0.02))
    far = training[:1].copy()
    far[:, 0] = 100.0
    (_, low, high), (_, far_low, far_high) = predict(model, training[:1]), predict(model, far)
    assert np.log(far_high / far_low) > 1.05 * np.log(high / low)


def test_a_slot_that_is_empty_in_all_training_networks_is_predicted_like_the_others():
    training, new = some_blocks(30), some_blocks(5, seed=2)
    training[:, 9] = np.nan
    predicted = predict(fit(training, latencies(training, 0.9)), new)[0]
    assert predicted == pytest.approx(latencies(new, 0.9), rel=0.1)


def test_costs_in_proportion_to_the_pixels_are_learned():
    """Such as layout conversions, which a block alone pays for and a network does not, whatever the block."""
    resolution, blocks = np.random.default_rng(5).choice([10.0, 14.0, 20.0], 120), some_blocks(120)
    saved = np.linspace(0.05, 0.2, N_SLOTS) * (resolution**2 / 200)[:, None]
    true = OVERHEAD_MS + np.nansum(blocks - saved, axis=1)
    training, new = networks(blocks[:80], resolution[:80]), networks(blocks[80:], resolution[80:])
    assert BlockRegression.fit(training, true[:80], OVERHEAD_MS).predict(new)[0] == pytest.approx(true[80:], rel=0.01)


def test_costs_that_grow_with_the_parameters_are_learned():
    """Such as cache misses."""
    params_m, blocks = np.random.default_rng(5).uniform(0.5, 4.0, 120), some_blocks(120)
    true = OVERHEAD_MS + np.nansum(blocks, axis=1) * (0.8 + 0.1 * params_m)
    training, new = networks(blocks[:80], 1.0, params_m[:80]), networks(blocks[80:], 1.0, params_m[80:])
    assert BlockRegression.fit(training, true[:80], OVERHEAD_MS).predict(new)[0] == pytest.approx(true[80:], rel=0.01)


def test_a_resolution_of_no_training_network_is_predicted_like_the_others():
    blocks, new = some_blocks(80), networks(some_blocks(40, seed=2), resolution=14.0)
    resolution = np.random.default_rng(5).choice([10.0, 20.0], 80)
    training = networks(blocks, resolution)
    model = BlockRegression.fit(training, latencies(blocks, 0.9) * np.where(resolution < 15, 1.0, 1.1), OVERHEAD_MS)
    low, high = latencies(new.blocks_ms, 0.9), 1.1 * latencies(new.blocks_ms, 0.9)
    assert np.all((0.98 * low < model.predict(new)[0]) & (model.predict(new)[0] < 1.02 * high))


@pytest.mark.parametrize("kind", ["codes", "choices"])
def test_the_effect_of_a_block_or_a_choice_on_the_whole_is_learned(kind):
    """Such as kernels that a runtime picks for a block only if it stands between others."""
    rng = np.random.default_rng(5)
    blocks, drawn = some_blocks(160), rng.integers(0, 3, (160, N_SLOTS if kind == "codes" else N_CHOICES))
    blocks[:, :6] = blocks[:, :6].mean(axis=0)  # these say nothing of which block it is
    share = np.array([0.0, 0.05, -0.1])[drawn[:, 2]]
    true = latencies(blocks, 0.9) * (1 + share)
    training, new = networks(blocks[:120], **{kind: drawn[:120]}), networks(blocks[120:], **{kind: drawn[120:]})
    model = BlockRegression.fit(training, true[:120], OVERHEAD_MS)
    blind = BlockRegression.fit(networks(blocks[:120]), true[:120], OVERHEAD_MS)
    assert model.predict(new)[0] == pytest.approx(true[120:], rel=0.01)
    assert np.abs(blind.predict(new)[0] / true[120:] - 1).max() > 0.05
    unseen = networks(blocks[120:], **{kind: drawn[120:] + 100})
    assert model.predict(unseen)[0] == pytest.approx(latencies(blocks[120:], 0.9), rel=0.1)


def test_intervals_hold_nine_in_ten_networks_also_if_errors_are_not_normal():
    """A few networks are far slower than the others."""
    held = []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        blocks = some_blocks(300, seed)
        measured = latencies(blocks, 0.9) * np.exp(0.01 * rng.standard_t(2, 300))
        _, low, high = fit(blocks[:100], measured[:100]).predict(networks(blocks[100:]))
        held.append(np.mean((low < measured[100:]) & (measured[100:] < high)))
    assert np.mean(held) == pytest.approx(INTERVAL, abs=0.04)
