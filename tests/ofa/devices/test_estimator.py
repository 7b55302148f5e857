import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ofa.devices.estimator import Burst, LatencyEstimator


def drawn(n_models, n_bursts, disturbed, seed=0):
    """Bursts of models that take 1, 2, ... ms beside a reference of 10 ms, some disturbed for the model alone."""
    rng = np.random.default_rng(seed)
    noise = np.exp(0.003 * rng.standard_normal((n_models, n_bursts)))
    slower = 1 + 0.7 * rng.random((n_models, n_bursts)) * (rng.random((n_models, n_bursts)) < disturbed)
    return {f"{i}": [Burst(float(ms), 10.0, 0) for ms in (1 + i) * noise[i] * slower[i]] for i in range(n_models)}


def test_all_bursts_count_relative_to_the_reference_around_them():
    samples = {"a": [Burst(1.0, 10.0, 0), Burst(3.0, 20.0, 0), Burst(8.0, 40.0, 0)], "b": [Burst(5.0, 20.0, 0)]}
    estimator = LatencyEstimator.fit(samples, "all")
    timing = estimator(samples["a"])  # 20 ms is the median of the reference
    assert (timing.median_ms, timing.repeats) == (pytest.approx(3.0), 3)
    assert timing.spread_ms == pytest.approx(3.5 - 2.5)
    assert estimator(samples["b"]).median_ms == pytest.approx(5.0)


def test_the_fastest_eighth_counts_relative_to_the_fastest_reference():
    bursts = [Burst(float(ms), 10.0 + ms, 0) for ms in range(1, 18)]
    timing = LatencyEstimator.fit({"a": bursts}, "fastest")(bursts[::-1])
    assert (timing.median_ms, timing.spread_ms, timing.repeats) == (pytest.approx(2.0), pytest.approx(1.0), 3)
    # of the reference, the fastest eighth is 11, 12 and 13 ms; latencies are those at its median


@pytest.mark.parametrize("disturbed", [0.1, 0.5, 1.0])
def test_a_model_like_the_reference_takes_as_long_as_the_reference_however_disturbed_the_machine(disturbed):
    """The model's bursts and the reference's are disturbed independently, by up to twice their time."""
    rng = np.random.default_rng(0)
    slower = 1 + rng.random((2, 50, 400)) * (rng.random((2, 50, 400)) < disturbed)
    samples = {f"{i}": [Burst(*pair, 0) for pair in slower[:, i].T.tolist()] for i in range(50)}
    estimator = LatencyEstimator.fit(samples, "fastest", reference_ms=10.0)
    assert np.mean([estimator(bursts).median_ms for bursts in samples.values()]) == pytest.approx(10.0, rel=0.01)


def test_each_session_is_relative_to_its_own_reference():
    """Two loads of the same models may be differently slow, as when memory is laid out differently."""
    samples = {f"{i}": [Burst(1.3, 1.3, 1)] * 20 + [Burst(1.0, 1.0, 0)] * 20 for i in range(5)}
    estimator = LatencyEstimator.fit(samples | {"other": [Burst(2.6, 1.3, 1)] * 20}, "fastest")
    assert estimator(samples["0"]).median_ms == pytest.approx(1.15)  # the mean of both sessions
    assert estimator([Burst(2.6, 1.3, 1)] * 20).median_ms == pytest.approx(2.3)


@pytest.mark.parametrize(
    ("n_models", "n_bursts", "disturbed", "fastest"),
    [(30, 24, 0.6, True), (250, 24, 0.6, True), (29, 24, 0.6, False), (30, 15, 0.6, False), (30, 24, 0.0, False)],
)
def test_the_fastest_bursts_are_chosen_where_they_repeat_better_on_enough_models(
    n_models, n_bursts, disturbed, fastest
):
    samples = drawn(n_models, n_bursts, disturbed)
    assert LatencyEstimator.fit(samples).fastest is fastest
    for selection in ("all", "fastest"):
        assert LatencyEstimator.fit(samples, selection).fastest is (selection == "fastest")


@pytest.mark.parametrize("selection", ["all", "fastest"])
def test_the_standard_error_is_the_spread_of_repeated_measurements(selection):
    noisy = np.exp(0.02 * np.random.default_rng(0).standard_normal((400, 60)))
    samples = {f"{i}": [Burst(float(ms), 1.0, 0) for ms in row] for i, row in enumerate(noisy)}
    estimator = LatencyEstimator.fit(samples, selection)
    actual_percent = 100 * np.std([estimator(bursts).median_ms for bursts in samples.values()])
    estimated_percent = np.mean([estimator.error_percent(bursts) for bursts in samples.values()])
    assert estimated_percent == pytest.approx(actual_percent, rel=0.15)


@given(st.floats(0.1, 10.0), st.integers(0, 100))
def test_a_machine_that_is_slower_throughout_gives_latencies_that_are_longer_throughout(factor, seed):
    samples = drawn(4, 12, 0.3, seed)
    slower = {name: [Burst(factor * b.run_ms, factor * b.reference_ms, 0) for b in samples[name]] for name in samples}
    for selection in ("all", "fastest"):
        first, second = (LatencyEstimator.fit(some, selection) for some in (samples, slower))
        for name in samples:
            assert second(slower[name]).median_ms == pytest.approx(factor * first(samples[name]).median_ms)


@given(st.floats(0.1, 10.0), st.integers(0, 100))
def test_with_the_reference_of_an_earlier_measurement_the_speed_of_the_machine_does_not_matter(factor, seed):
    samples = drawn(4, 12, 0.3, seed)
    slower = {name: [Burst(factor * b.run_ms, factor * b.reference_ms, 0) for b in samples[name]] for name in samples}
    for selection in ("all", "fastest"):
        before = LatencyEstimator.fit(samples, selection)
        after = LatencyEstimator.fit(slower, selection, reference_ms=before.reference_ms)
        for name in samples:
            assert after(slower[name]).median_ms == pytest.approx(before(samples[name]).median_ms)


def test_no_samples_are_no_error():
    assert not LatencyEstimator.fit({}).fastest
