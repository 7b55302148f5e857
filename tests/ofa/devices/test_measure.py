import numpy as np
import pytest
import torch
from torch import nn

from ofa.core.errors import DeviceError
from ofa.devices.device import Model
from ofa.devices.measure import MeasureConfig, NoisyDevice, measure
from ofa.devices.statistic import Statistic

REFERENCE = Model(nn.Identity, (10,))


def models(n=12):
    """Models that take 1, 2, 3, ... ms where a run takes as long as the input is wide."""
    return {f"model {i}": Model(nn.Identity, (i,)) for i in range(1, n + 1)}


def by_width(module, shape):  # noqa: ARG001
    return float(shape[0])


def timed(device, wanted=None, samples=None, **config):
    return measure(device, wanted or models(), REFERENCE, np.random.default_rng(0), MeasureConfig(**config), samples)


def medians(timings):
    return [timing.median_ms for timing in timings.values()]


def test_without_noise_every_model_takes_its_time(pretend, place):
    timings = timed(pretend(place(by_width)), min_rounds=3)
    assert list(timings) == list(models())
    assert medians(timings) == pytest.approx(range(1, 13))
    assert all((timing.spread_ms, timing.repeats) == (pytest.approx(0, abs=1e-9), 3) for timing in timings.values())


def test_a_drift_falls_on_the_reference_too(pretend, place):
    def slower(moment):
        return 1 + moment / 600

    one = place(by_width, speed=slower)
    ratios = np.array(medians(timed(pretend(one)))) / np.arange(1, 13)
    assert slower(one.moment) > 1.2  # at the end of the measuring
    assert ratios.max() / ratios.min() < 1.015


def test_single_runs_that_take_much_longer_do_not_count(pretend, place):
    rng = np.random.default_rng(3)
    timings = timed(pretend(place(by_width, speed=lambda _: 20.0 if rng.random() < 0.1 else 1.0)), min_rounds=20)
    assert medians(timings) == pytest.approx(range(1, 13), rel=0.01)


def test_models_are_visited_until_they_are_known_well_enough(pretend, place):
    one = place(by_width, noise=0.05)
    timings = timed(pretend(one), burst_ms=1e-9, max_rounds=500, precision_percent=1.0)
    repeats = np.array([timing.repeats for timing in timings.values()])
    assert len(set(repeats)) > 1  # each as often as it needs
    assert 20 < np.median(repeats) < 200  # 1.25 * 5 % / sqrt(n) = 1 % after about 40, and the reference varies too
    errors = np.abs(np.array(medians(timings)) / np.arange(1, 13) / (medians(timings)[9] / 10) - 1)
    assert errors.mean() < 0.02
    assert all(timing.error() <= 0.01 for timing in timings.values())


def disturbed(seed):
    """The speed of a machine that others use in three of five bursts, more or less."""
    rng = np.random.default_rng(seed)
    return lambda _: 1.0 + 0.7 * rng.random() * (rng.random() < 0.6)


def test_where_others_use_the_machine_the_fastest_bursts_count(pretend, place):
    wanted, noise = models(80), {"noise": 0.003, "speed": disturbed(5)}
    timings = timed(pretend(place(by_width, **noise)), wanted, burst_ms=1e-9)
    assert {timing.repeats for timing in timings.values()} <= set(range(3, 9))  # an eighth of 24 to 60
    with pytest.warns(NoisyDevice):
        every = timed(pretend(place(by_width, **noise)), wanted, burst_ms=1e-9, bursts="all")
    assert {timing.repeats for timing in every.values()} <= set(range(24, 61))
    errors = [np.std(np.array(medians(found)) / np.arange(1, 81)) for found in (timings, every)]
    assert errors[0] < 0.5 * errors[1]
    assert np.mean(np.array(medians(timings)) / np.arange(1, 81)) == pytest.approx(1.0, abs=0.03)  # undisturbed


@pytest.mark.parametrize("noise", [0.0, 0.002, 0.02])
def test_on_a_quiet_machine_all_bursts_count(pretend, place, noise):
    timings = timed(pretend(place(by_width, noise=noise)), models(80), burst_ms=1e-9)
    assert all(timing.repeats >= 24 for timing in timings.values())


@pytest.mark.parametrize("bursts", ["all", "fastest"])
def test_the_error_is_that_of_other_measurements(bursts):
    rng = np.random.default_rng(0)
    noisy = np.exp(0.02 * rng.standard_normal((400, 60)))
    samples = {f"{i}": [(float(took), 1.0, 0) for took in row] for i, row in enumerate(noisy)}
    statistic = Statistic.of(samples, bursts)
    found_percent = 100 * np.std([statistic(some).median_ms for some in samples.values()])
    said_percent = np.mean([statistic.error_percent(some) for some in samples.values()])
    assert said_percent == pytest.approx(found_percent, rel=0.15)


def test_sessions_are_relative_to_their_own_reference():
    slower = {f"{i}": [(1.3, 1.3, 1)] * 20 + [(1.0, 1.0, 0)] * 20 for i in range(5)}
    statistic = Statistic.of(slower | {"other": [(2.6, 1.3, 1)] * 20}, "fastest")
    assert statistic(slower["0"]).median_ms == pytest.approx(1.15)  # between the two
    assert statistic([(2.6, 1.3, 1)] * 20).median_ms == pytest.approx(2.3)


def test_rounds_visit_all_models_in_changing_order_and_the_reference_between(pretend, place):
    one = place(by_width)
    timed(pretend(one), min_rounds=6)
    bursts = one.visits[1 + 12 + 0 :]  # the reference and the models are run once to know how often
    rounds = [
        bursts[i : i + 15] for i in range(0, len(bursts), 15)
    ]  # 12 models; the reference at both ends and between
    assert len(rounds) == 6
    assert all(set(visits) == set(range(13)) and visits.count(0) == 3 for visits in rounds)
    assert all(visits[0] == visits[-1] == 0 for visits in rounds)
    assert len({tuple(visits) for visits in rounds}) > 1


def test_a_noisy_device_is_told(pretend, place):
    five = {"min_rounds": 5, "max_rounds": 5}
    with pytest.warns(NoisyDevice, match=r"12 of 12 latencies are less sure than 0.1%, the worst to .*close other"):
        timings = timed(pretend(place(by_width, noise=0.2)), burst_ms=1e-9, **five, precision_percent=0.1)
    assert all(timing.repeats == 5 for timing in timings.values())


def test_only_what_is_missing_or_doubtful_is_measured_again(pretend, place):
    samples, first, second = {}, place(by_width), place(by_width)
    timed(pretend(first), dict(list(models().items())[:5]), samples)
    samples["model 2"] = [(1.0, 1.0, 0), (3.0, 1.0, 0)] * 20
    timings = timed(pretend(second), samples=samples)
    again = {model.input_shape[0] for model in second.loaded} - {10}
    assert again == {2, 6, 7, 8, 9, 11, 12}  # and 10, as wide as the reference is
    assert timings["model 1"].repeats == 24
    assert timings["model 2"].repeats > 40


def test_places_share_the_models(pretend, place):
    fast, slow = place(by_width), place(by_width, speed=lambda _: 3.0)
    timings = timed(pretend(fast, slow))
    assert len(fast.loaded) == len(slow.loaded) == 1 + 6
    ratios = np.array(medians(timings)) / np.arange(1, 13)
    assert ratios.max() / ratios.min() < 1.001  # each relative to its place's own reference


@pytest.mark.parametrize("lasts", [0, 5, 40])
def test_the_models_of_a_lost_place_go_to_the_others(pretend, place, lasts):
    dies, lives, other = place(by_width, lasts=lasts), place(by_width), place(by_width)
    timings = timed(pretend(dies, lives, other))
    assert medians(timings) == pytest.approx(range(1, 13))
    assert len(lives.loaded) + len(other.loaded) >= 12


def test_a_device_without_a_place_left(pretend, place):
    with pytest.raises(DeviceError, match="'pretend' is lost, 12 of 12 models are not measured"):
        timed(pretend(place(by_width, lasts=3), place(by_width, lasts=0)))


def test_no_more_is_loaded_at_once_than_fits(pretend, place):
    one, seen = place(lambda module, shape: 1.0), []
    wanted = {f"{i}": Model(lambda: nn.Linear(512, 512, bias=False), (512,)) for i in range(7)}  # 1 MiB each

    def load(model):
        seen.append(len(one.visits))
        return type(one).load(one, model)

    device = pretend(type("Host", (), {"load": staticmethod(load)}))
    timed(device, wanted, weights_mib=2.5, min_rounds=2)
    gaps = np.diff(seen[1:])  # measuring lies between the loading of groups
    assert (gaps > 3).sum() == 4 * 2 - 1  # 4 groups of at most 2, again for the second visit
    assert all(model.weights_mib == 1.0 for model in wanted.values())


def test_the_same_seed_gives_the_same(pretend, place):
    before = torch.get_rng_state()
    runs = [timed(pretend(place(by_width, noise=0.01, seed=4)), burst_ms=1e-9) for _ in range(2)]
    assert runs[0] == runs[1]
    assert torch.equal(torch.get_rng_state(), before)


def test_too_few_rounds():
    with pytest.raises(ValueError, match="max_rounds = 3 is below min_rounds = 24; raise it"):
        MeasureConfig(max_rounds=3)


def test_nothing_to_measure(pretend):
    assert measure(pretend(), {}, REFERENCE, np.random.default_rng(0)) == {}
