import re
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from export.policies.battery import Battery
from export.policies.endurance import EndurancePolicy
from export.policies.latency_guard import LatencyGuard
from export.policies.policy import BatteryPolicy, Observation
from ofa.core.errors import BundleError
from tests.levels import level

LATENCIES_MS = (40.0, 20.0, 10.0)
GUARD = LatencyGuard(BatteryPolicy.even(3), LATENCIES_MS, bound_ms=50.0, patience_s=30.0)


def seen(time_s, level, latency_ms, percent=100.0):
    return Observation(time_s, Battery(percent, charging=False), (0, 0, 0), level, latency_ms)


def served(guard, slowdowns, step_s=10.0, percent=100.0):
    """The levels that serve while the processor is slowed down by the given factors in turn."""
    state, levels, served_level, latency_ms = None, [], None, None
    for i, slowdown in enumerate(slowdowns):
        level, state = guard.decide(state, seen(i * step_s, served_level, latency_ms, percent))
        levels.append(level)
        served_level, latency_ms = level, LATENCIES_MS[level] * slowdown
    return levels


def test_a_fast_device_runs_the_level_of_the_policy_inside():
    assert served(GUARD, [1.0] * 20) == [0] * 20
    assert served(GUARD, [1.0] * 20, percent=50.0) == [1] * 20


def test_a_latency_above_the_bound_must_last_before_a_faster_level_runs():
    assert served(GUARD, [1.0, 2.0, 2.0, 1.0, 2.0, 2.0, 1.0, 1.0]) == [0] * 8
    assert served(GUARD, [1.0, *[2.0] * 6]) == [0, 0, 0, 0, 0, 1, 1]


def test_the_slowest_level_that_is_expected_below_the_bound_runs():
    assert served(GUARD, [1.5] * 8)[-1] == 1
    assert served(GUARD, [3.0] * 8)[-1] == 2
    assert served(GUARD, [30.0] * 20)[-1] == 2


def test_slower_levels_return_one_by_one_once_they_are_expected_well_below_the_bound():
    assert served(GUARD, [3.0] * 8 + [1.0] * 12) == [0] * 4 + [2] * 8 + [1] * 4 + [0] * 4


def test_a_level_that_is_expected_just_below_the_bound_does_not_return():
    just_below, well_below = 49.0 / 40.0, 44.0 / 40.0
    assert set(served(GUARD, [1.5] * 8 + [just_below] * 50)[8:]) == {1}
    assert served(GUARD, [1.5] * 8 + [well_below] * 50)[-1] == 0


def test_a_level_that_heats_the_processor_is_tried_less_and_less_often():
    state, heat, served_level, latency_ms, levels = None, 0.0, None, None, []
    for i in range(8 * 360):  # 8 hours; level 0 heats within minutes, the others let it cool
        chosen, state = GUARD.decide(state, seen(10.0 * i, served_level, latency_ms))
        heat += ((1.0 if chosen == 0 else 0.0) - heat) * 10 / 120
        served_level, latency_ms = chosen, LATENCIES_MS[chosen] * (1.0 + heat)
        levels.append(chosen)
    switches = sum(a != b for a, b in pairwise(levels))
    assert switches <= 30
    first, last = levels[: len(levels) // 2], levels[len(levels) // 2 :]
    assert sum(a != b for a, b in pairwise(last)) < sum(a != b for a, b in pairwise(first))


def test_a_return_after_a_long_time_is_as_quick_as_the_first():
    hot, cool = [1.5] * 8, [1.0] * 200
    levels = served(GUARD, hot + cool + hot + cool)
    first, second = levels[: len(levels) // 2], levels[len(levels) // 2 :]
    assert first.count(1) == second.count(1)


def test_a_slow_request_never_brings_a_slower_level_back():
    state = None
    slow = (0.0, 200.0), (15.0, 200.0), (30.0, 200.0), (40.0, 60.0), (55.0, 60.0), (70.0, 60.0)
    for time_s, latency_ms in slow:
        level, state = GUARD.decide(state, seen(time_s, 0, latency_ms))
    assert (level, state.slowest) == (2, 2)


def test_the_fastest_level_may_stay_above_the_bound_without_a_longer_wait_afterwards():
    relapsed = served(GUARD, [3.0] * 8 + [1.0] * 8 + [30.0] * 8 + [1.0] * 30)
    throttled_longer = served(GUARD, [3.0] * 8 + [1.0] * 8 + [30.0] * 40 + [1.0] * 30)
    assert relapsed[-30:] == throttled_longer[-30:]


def test_without_requests_nothing_changes():
    state = None
    for i in range(8):
        _, state = GUARD.decide(state, seen(10.0 * i, 0, 90.0))
    level, after = GUARD.decide(state, seen(5000.0, 2, None))
    assert (level, after) == (1, state)


@given(st.lists(st.tuples(st.floats(0.01, 1e5), st.sampled_from([10.0, 40.0, 60.0, 200.0])), max_size=60))
def test_however_long_the_pauses_are_three_decisions_in_a_row_agree_before_the_level_changes(passed):
    state, level, time_s, above = None, 0, 0.0, []
    for pause_s, latency_ms in passed:
        time_s += pause_s
        above.append(latency_ms > GUARD.bound_ms)
        before, (level, state) = level, GUARD.decide(state, seen(time_s, level, latency_ms))
        if level != before:
            assert above[-3:] == [level > before] * 3


@pytest.mark.parametrize(("first", "later"), [([1.0], 2.0), ([2.0], 2.0), ([3.0] * 8, 1.0), ([3.0] * 8 + [1.0], 1.0)])
def test_one_request_after_an_idle_hour_is_not_half_a_minute(first, later):
    state, served_level, latency_ms = None, 0, None
    for i, slowdown in enumerate(first):
        served_level, state = GUARD.decide(state, seen(10.0 * i, served_level, latency_ms))
        latency_ms = LATENCIES_MS[served_level] * slowdown
    level, _ = GUARD.decide(state, seen(5000.0, served_level, LATENCIES_MS[served_level] * later))
    assert level == served_level


def test_rare_requests_that_are_all_slow_bring_a_faster_level():
    assert served(GUARD, [2.0] * 6, step_s=600.0) == [0, 0, 0, 1, 1, 1]


def test_the_policy_inside_keeps_its_own_level():
    guard = LatencyGuard(BatteryPolicy((50.0, 20.0), hysteresis_percent=5.0), LATENCIES_MS, bound_ms=50.0)
    state = None
    for time_s in (0.0, 20.0, 40.0):
        level, state = guard.decide(state, seen(time_s, 0, 200.0, percent=100.0))
    assert (level, state.inner) == (2, 0)
    level, state = guard.decide(state, seen(60.0, 2, None, percent=52.0))  # level 2 inside would return to 1 only
    assert (level, state.inner) == (2, 0)


def test_it_guards_the_endurance_policy_as_well():
    policy = EndurancePolicy(8.0, (4.0, 2.0, 1.0), (90.0, 88.0, 80.0), requests_per_hour=100.0)
    guard = LatencyGuard(policy, LATENCIES_MS, bound_ms=50.0)
    levels, state = [], None
    for time_s in (0.0, 20.0, 40.0):
        reading = Battery(100.0, charging=False, capacity_wh=50.0)
        chosen, state = guard.decide(state, Observation(time_s, reading, (0, 0, 0), 0, 60.0))
        levels.append(chosen)
    assert levels == [0, 0, 1]
    assert state.inner.end_s == 8 * 3600


@given(st.lists(st.floats(0.1, 10.0), min_size=1, max_size=200), st.floats(0, 100))
def test_it_never_runs_a_slower_level_than_the_policy_and_changes_only_after_its_patience(slowdowns, percent):
    inner = GUARD.policy.level(percent, None)
    levels = served(GUARD, slowdowns, percent=percent)
    assert all(inner <= chosen < 3 for chosen in levels)
    changes = [i for i, (a, b) in enumerate(pairwise(levels)) if a != b]
    assert all(10.0 * (later - sooner) >= GUARD.patience_s for sooner, later in pairwise(changes))


def test_levels_of_a_bundle_give_their_latencies():
    levels = [level({}, "", latency_ms=ms) for ms in LATENCIES_MS]
    assert LatencyGuard.of(BatteryPolicy.even(3), levels, bound_ms=50.0) == GUARD


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"bound_ms": 0}, "bound_ms = 0 is not allowed"),
        ({"patience_s": -1}, "patience_s = -1 is not allowed"),
        ({"latencies_ms": (1.0, 2.0, float("nan"))}, "latencies_ms = nan is not allowed"),
        ({"latencies_ms": (1.0,)}, "1 latencies for a policy of 3 levels are not allowed; give one per level"),
    ],
)
def test_values_out_of_range_are_refused(values, message):
    options = {"policy": BatteryPolicy.even(3), "latencies_ms": LATENCIES_MS, "bound_ms": 5.0}
    with pytest.raises(BundleError, match=re.escape(message)):
        LatencyGuard(**options | values)
