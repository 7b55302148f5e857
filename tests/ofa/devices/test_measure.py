import math
import signal
import threading
from time import sleep

import numpy as np
import pytest
import torch
from torch import nn

from ofa.core.errors import DeviceError
from ofa.devices.device import HostLost, Model
from ofa.devices.estimator import Burst
from ofa.devices.measure import MeasureConfig, NoisyDevice, measure

REFERENCE = Model(nn.Identity, (10,))


def models(n=12):
    """Models that take 1, 2, 3, ... ms if a run takes as long as the input is wide."""
    return {f"model {i}": Model(nn.Identity, (i,)) for i in range(1, n + 1)}


def by_width(module, shape):  # noqa: ARG001
    return float(shape[0])


def timed(
    device,
    wanted=None,
    samples=None,
    on_progress=lambda done, total: None,
    reference_ms=None,
    seconds=None,
    **config,
):
    rng = np.random.default_rng(0)
    return measure(
        device,
        models() if wanted is None else wanted,
        REFERENCE,
        rng,
        config=MeasureConfig(**config),
        samples=samples,
        reference_ms=reference_ms,
        seconds=seconds,
        on_progress=on_progress,
    )


def medians(timings):
    return np.array([timing.median_ms for timing in timings.values()])


def test_without_noise_every_latency_is_exact(pretend, host):
    timings = timed(pretend(host(by_width)), min_rounds=3)
    assert list(timings) == list(models())
    assert medians(timings) == pytest.approx(range(1, 13))
    assert all((timing.spread_ms, timing.repeats) == (pytest.approx(0, abs=1e-9), 3) for timing in timings.values())


def test_a_drift_of_the_machine_is_taken_out(pretend, host):
    def slower(n_bursts):
        return 1 + n_bursts / 600

    drifting = host(by_width, speed=slower)
    ratios = medians(timed(pretend(drifting))) / np.arange(1, 13)
    assert slower(drifting.n_bursts) > 1.2  # at the end
    assert ratios.max() / ratios.min() < 1.015


def test_a_computer_that_is_slower_than_it_was_gives_the_latencies_of_then(pretend, host):
    slow = pretend(host(by_width, speed=lambda _: 2.0))
    assert medians(timed(slow)) == pytest.approx(2 * np.arange(1, 13))
    assert medians(timed(slow, reference_ms=10.0)) == pytest.approx(np.arange(1, 13))


def test_a_few_slow_runs_do_not_matter(pretend, host):
    rng = np.random.default_rng(3)
    timings = timed(pretend(host(by_width, speed=lambda _: 20.0 if rng.random() < 0.1 else 1.0)), min_rounds=20)
    assert medians(timings) == pytest.approx(range(1, 13), rel=0.01)


def test_a_burst_takes_about_as_long_as_configured_and_slow_models_run_once(pretend, host):
    slow, fast = host(by_width), host(lambda module, shape: 1e-5 * shape[0])
    for one in (slow, fast):
        timed(pretend(one), burst_ms=6.0, min_rounds=2)
    for index, n in zip(slow.visits[13:], slow.n_runs[13:], strict=True):
        assert n == max(1, round(6.0 / slow.loaded[index].input_shape[0]))
    assert slow.n_runs[:13] == [5] * 13  # one warm-up each, which shows how long a run takes
    assert set(fast.n_runs[13:]) == {round(6.0 / 1e-3)}  # below a microsecond, the clock says little


def test_models_are_visited_until_their_latency_is_precise(pretend, host):
    timings = timed(pretend(host(by_width, noise=0.05)), burst_ms=1e-9, max_rounds=500, precision_percent=1.0)
    repeats = np.array([timing.repeats for timing in timings.values()])
    assert len(set(repeats)) > 1  # each as often as it takes
    assert 20 < np.median(repeats) < 200  # 1.25 * 5 % / sqrt(n) = 1 % after about 40, and the reference varies too
    errors = np.abs(medians(timings) / np.arange(1, 13) / (medians(timings)[9] / 10) - 1)
    assert errors.mean() < 0.02
    assert all(timing.relative_error() <= 0.01 for timing in timings.values())


def test_no_model_is_visited_more_often_than_allowed(pretend, host):
    five = {"min_rounds": 3, "max_rounds": 5, "precision_percent": 0.1}
    with pytest.warns(NoisyDevice, match=r"12 of 12 latencies have a standard error above 0.1%, up to .*close other"):
        timings = timed(pretend(host(by_width, noise=0.2)), burst_ms=1e-9, **five)
    assert all(timing.repeats == 5 for timing in timings.values())


def disturbed(seed):
    """The speed of a machine that other programs use during about three of five bursts."""
    rng = np.random.default_rng(seed)
    return lambda _: 1.0 + 0.7 * rng.random() * (rng.random() < 0.6)


def test_on_a_shared_machine_the_fastest_bursts_count(pretend, host):
    many, options = models(80), {"noise": 0.003}
    by_fastest = timed(pretend(host(by_width, speed=disturbed(5), **options)), many, burst_ms=1e-9)
    assert {timing.repeats for timing in by_fastest.values()} <= set(range(3, 9))  # an eighth of 24 to 60
    with pytest.warns(NoisyDevice):
        by_all = timed(pretend(host(by_width, speed=disturbed(5), **options)), many, burst_ms=1e-9, bursts="all")
    assert {timing.repeats for timing in by_all.values()} <= set(range(24, 61))
    spreads = [np.std(medians(timings) / np.arange(1, 81)) for timings in (by_fastest, by_all)]
    assert spreads[0] < 0.5 * spreads[1]
    assert np.mean(medians(by_fastest) / np.arange(1, 81)) == pytest.approx(1.0, abs=0.03)  # as if undisturbed


@pytest.mark.parametrize("noise", [0.0, 0.002, 0.02])
def test_on_a_quiet_machine_all_bursts_count(pretend, host, noise):
    timings = timed(pretend(host(by_width, noise=noise)), models(80), burst_ms=1e-9)
    assert all(timing.repeats >= 24 for timing in timings.values())


def test_rounds_visit_all_models_in_changing_order_and_the_reference_after_every_eight(pretend, host):
    one = host(by_width)
    timed(pretend(one), min_rounds=6)
    bursts = one.visits[1 + 12 :]  # after the warm-up of the reference and the models
    rounds = [bursts[i : i + 15] for i in range(0, len(bursts), 15)]  # 12 models, three bursts of the reference
    assert len(rounds) == 6
    assert all(set(visits) == set(range(13)) for visits in rounds)
    assert all([i for i, visit in enumerate(visits) if visit == 0] == [0, 9, 14] for visits in rounds)
    assert len({tuple(visits) for visits in rounds}) == 6


def test_the_reference_of_a_burst_is_the_median_of_the_three_before_and_the_three_after_it(pretend, host):
    drifting, samples = host(by_width, speed=lambda n_bursts: 1 + 0.01 * n_bursts), {}
    timed(pretend(drifting), models(70), samples, min_rounds=2, max_rounds=2, precision_percent=100)
    times = [1 + 0.01 * (i + 1) for i in range(len(drifting.visits))]
    start, per_round = 1 + 70, 70 + 10
    for number in range(2):
        visits = list(enumerate(drifting.visits))[start + number * per_round : start + (number + 1) * per_round]
        reference = [i for i, visit in visits if visit == 0]
        for i, visit in visits:
            if visit > 0:
                around = [j for j in reference if j < i][-3:] + [j for j in reference if j > i][:3]
                width = drifting.loaded[visit].input_shape[0]
                burst = samples[f"model {width}"][number]
                assert burst.run_ms == pytest.approx(width * times[i])
                assert burst.reference_ms == pytest.approx(10 * np.median([times[j] for j in around]))


# Resuming


def test_only_what_is_missing_or_not_precise_is_measured_again(pretend, host):
    samples, first, second = {}, host(by_width), host(by_width)
    timed(pretend(first), dict(list(models().items())[:5]), samples)
    samples["model 2"] = [Burst(1.0, 1.0, 0), Burst(3.0, 1.0, 0)] * 20
    timings = timed(pretend(second), samples=samples)
    again = {model.input_shape[0] for model in second.loaded} - {10}
    assert again == {2, 6, 7, 8, 9, 11, 12}  # and 10, which is as wide as the reference
    assert timings["model 1"].repeats == 24
    assert timings["model 2"].repeats > 40
    sessions = {name: {burst.session for burst in samples[name]} for name in ("model 1", "model 2", "model 12")}
    assert sessions == {"model 1": {0}, "model 2": {0, 1}, "model 12": {1}}


def test_progress_counts_loaded_models_and_required_visits(pretend, host):
    calls, samples = [], {}
    timed(pretend(host(by_width)), models(3), samples, lambda *call: calls.append(call), min_rounds=2)
    assert calls == [(16, 54), (32, 54), (48, 54), (51, 54), (54, 54)]
    calls.clear()
    timed(pretend(host(by_width)), models(4), samples, lambda *call: calls.append(call), min_rounds=2)
    assert calls == [(48 + 6 + 16, 72), (48 + 6 + 17, 72), (72, 72)]


# Hosts


def test_hosts_share_the_models(pretend, host):
    fast, slow = host(by_width), host(by_width, speed=lambda _: 3.0)
    timings = timed(pretend(fast, slow))
    assert len(fast.loaded) == len(slow.loaded) == 1 + 6
    ratios = medians(timings) / np.arange(1, 13)
    assert ratios.max() / ratios.min() < 1.001  # each is relative to its own host's reference


@pytest.mark.parametrize("lasts", [0, 5, 40])
def test_the_models_of_a_lost_host_go_to_the_others(pretend, host, lasts):
    dies, lives, other = host(by_width, lasts=lasts), host(by_width), host(by_width)
    timings = timed(pretend(dies, lives, other))
    assert medians(timings) == pytest.approx(range(1, 13))
    loaded = [model.input_shape[0] for one in (lives, other) for model in one.loaded]
    assert set(loaded) == set(range(1, 13))


def test_a_device_that_loses_all_hosts_is_one_error(pretend, host):
    with pytest.raises(DeviceError, match=r"'pretend' is lost, 12 of 12 models are not measured; reconnect"):
        timed(pretend(host(by_width, lasts=3), host(by_width, lasts=0)))


@pytest.mark.parametrize("ms", [0.0, -1.0, math.nan, math.inf])
def test_a_time_that_cannot_be_is_one_error(pretend, host, ms):
    with pytest.raises(DeviceError, match="which is no time; check the device's clock"):
        timed(pretend(host(lambda module, shape: ms)))


@pytest.fixture
def ctrl_c_raises():
    """Ctrl-C is an exception even where the tests were started in the background, whose programs ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def press_ctrl_c():
    signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
    return False


def fail_on_any_model():
    raise DeviceError("cannot run this model")


def be_lost():
    raise HostLost("gone")


@pytest.mark.usefixtures("ctrl_c_raises")
@pytest.mark.parametrize(
    ("ending", "error"), [(press_ctrl_c, KeyboardInterrupt), (fail_on_any_model, DeviceError), (be_lost, None)]
)
def test_an_error_of_one_host_and_ctrl_c_stop_all_hosts_at_once(pretend, host, ending, error):
    started, ended = threading.Event(), threading.Event()

    def busy(module, shape):
        started.set()
        assert ended.wait(timeout=30)  # until then, this host has its first model only
        sleep(0.02)  # a stop takes a moment to get here
        return by_width(module, shape)

    def ends(module, shape):
        started.wait(timeout=30)
        try:
            ending()
        finally:
            ended.set()
        return by_width(module, shape)

    long, short = host(busy), host(ends)
    if error is None:
        timed(pretend(long, short), models(40))
        assert len(long.loaded) > 40
        return
    with pytest.raises(error):
        timed(pretend(long, short), models(40))
    assert len(long.loaded) < 20


# Groups of models that do not fit into memory at once


def linear(side):
    return Model(lambda: nn.Linear(side, side, bias=False), (side,))


def groups_of(host, pretend, wanted, **config):
    """The input sizes of the models of each group, in the order of measuring; each begins with the reference."""
    one = host(lambda module, shape: 1.0)
    timings = timed(pretend(one), wanted, **config)
    groups = []
    for model in one.loaded:
        if model is REFERENCE:
            groups.append([])
        else:
            groups[-1].append(model.input_shape[0])
    return groups, timings


def test_models_are_loaded_in_groups_that_fit_and_again_in_other_groups(pretend, host):
    sides = (256, 362, 512, 513, 514, 515, 516)
    wanted = {f"{side}": linear(side) for side in sides}
    groups, timings = groups_of(host, pretend, wanted, weights_mib=2.5, min_rounds=8, max_rounds=16)
    mib = {side: side**2 * 4 / 2**20 for side in sides}
    assert all(len(group) == 1 or sum(map(mib.get, group)) <= 2.5 for group in groups)
    passes = np.split(np.concatenate(groups), 4)
    assert all(sorted(one) == sorted(sides) for one in passes)
    assert len({tuple(one) for one in passes}) == 4
    assert {timing.repeats for timing in timings.values()} == {8}
    assert any(len(group) > 1 for group in groups)


def test_a_model_too_large_for_the_memory_is_a_group_of_its_own(pretend, host):
    wanted = {f"{side}": linear(side) for side in (16, 512, 17)}
    groups, _ = groups_of(host, pretend, wanted, weights_mib=0.5, min_rounds=4)
    assert all(group == [512] or 512 not in group for group in groups)


def test_models_that_fit_are_one_group(pretend, host):
    wanted = {f"{side}": linear(side) for side in (256, 512)}
    groups, timings = groups_of(host, pretend, wanted, weights_mib=1.25, min_rounds=4)
    assert [sorted(group) for group in groups] == [[256, 512]]
    assert {timing.repeats for timing in timings.values()} == {4}


# Other


def test_the_same_seed_gives_the_same_timings_and_leaves_the_global_generator(pretend, host):
    before = torch.get_rng_state()
    runs = [timed(pretend(host(by_width, noise=0.01, seed=4)), burst_ms=1e-9) for _ in range(2)]
    assert runs[0] == runs[1]
    assert torch.equal(torch.get_rng_state(), before)


def test_fewer_rounds_at_most_than_at_least_are_refused():
    with pytest.raises(ValueError, match="max_rounds = 3 is below min_rounds = 24; raise it"):
        MeasureConfig(max_rounds=3)


def test_no_models_no_timings(pretend):
    assert timed(pretend(), {}) == {}


# Limited time


@pytest.fixture
def loading_takes_a_second(monkeypatch):
    """Make the clock count the models that a host has loaded, the reference included."""

    def count(host):
        monkeypatch.setattr("ofa.devices.measure.monotonic", lambda: float(len(host.loaded)))
        return host

    return count


def test_in_limited_time_the_models_that_are_named_first_are_measured(pretend, host, loading_takes_a_second):
    one, calls = loading_takes_a_second(host(by_width)), []
    timings = timed(pretend(one), seconds=8.5, on_progress=lambda *call: calls.append(call))
    assert list(timings) == list(models())[:7]
    assert medians(timings) == pytest.approx(range(1, 8))
    assert [timing.repeats for timing in timings.values()] == [8] * 7
    assert calls == [(second, 8) for second in range(2, 9)] + [(8, 8)] * 8  # loading, and eight rounds


def test_more_time_goes_on_and_ends_as_without_a_limit(pretend, host, loading_takes_a_second):
    samples = {}
    timed(pretend(loading_takes_a_second(host(by_width))), seconds=8.5, samples=samples)
    second = loading_takes_a_second(host(by_width))
    timings = timed(pretend(second), seconds=100, samples=samples)
    assert [model.input_shape[0] for model in second.loaded[:6]] == [10, 8, 9, 10, 11, 12]  # the reference, the others
    assert list(timings) == list(models())
    assert [timing.repeats for timing in timings.values()] == [24] * 12


def test_models_are_loaded_while_there_is_time_to_visit_them(pretend, host, monkeypatch):
    slow = host(by_width)
    monkeypatch.setattr("ofa.devices.measure.monotonic", lambda: 5.0 * len(slow.visits))  # a burst takes 5 s
    timings = timed(pretend(slow), seconds=100, burst_ms=5000.0)
    assert list(timings) == list(models())[:2]  # 8 visits to each take 80 s, and there are others to warm up
    assert [timing.repeats for timing in timings.values()] == [8, 8]


def test_no_time_at_all_measures_nothing(pretend, host):
    assert timed(pretend(host(by_width)), seconds=-1.0) == {}


def test_of_two_hosts_the_one_that_is_left_goes_on_within_the_time(pretend, host, monkeypatch):
    dies, lives = host(by_width, lasts=10), host(by_width)
    monkeypatch.setattr("ofa.devices.measure.monotonic", lambda: 0.0)
    timings = timed(pretend(dies, lives), seconds=100)
    assert medians(timings) == pytest.approx(range(1, 13))
