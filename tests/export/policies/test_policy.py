import pytest
from hypothesis import given
from hypothesis import strategies as st

from export.policies.battery import Battery
from export.policies.policy import BatteryPolicy, Observation
from ofa.core.errors import BundleError

charges = st.floats(0, 100)


@st.composite
def policies(draw):
    thresholds = draw(st.lists(st.floats(0, 100), max_size=5, unique=True))
    return BatteryPolicy(tuple(sorted(thresholds, reverse=True)), draw(st.floats(0, 20)))


def served(policy, percents, level=None):
    levels = []
    for percent in percents:
        level = policy.level(percent, level)
        levels.append(level)
    return levels


def test_even_thresholds_share_the_charge():
    assert BatteryPolicy.even(4).thresholds_percent == (75, 50, 25)
    assert BatteryPolicy.even(1).thresholds_percent == ()


@pytest.mark.parametrize(("percent", "level"), [(100, 0), (75.1, 0), (75, 1), (50, 2), (25.5, 2), (25, 3), (0, 3)])
def test_the_first_level_ignores_the_hysteresis(percent, level):
    assert BatteryPolicy.even(4).level(percent, None) == level


def test_the_way_back_waits_for_the_hysteresis():
    policy = BatteryPolicy((50,), hysteresis_percent=3)
    assert served(policy, [51, 50, 51, 53, 53.1, 50.1, 50]) == [0, 1, 1, 1, 0, 0, 1]


def test_a_jump_of_the_charge_skips_levels():
    assert served(BatteryPolicy.even(4), [100, 10, 60, 100]) == [0, 3, 1, 0]


def test_on_mains_power_level_0_runs():
    policy = BatteryPolicy.even(4)
    assert policy.level(1, current_level=3, charging=True) == 0
    assert policy.level(1, current_level=0, charging=False) == 3


@given(policies(), st.lists(charges, min_size=1))
def test_a_falling_battery_never_gives_a_slower_level(policy, percents):
    levels = served(policy, sorted(percents, reverse=True))
    assert levels == sorted(levels)
    assert levels == [policy.level(percent, None) for percent in sorted(percents, reverse=True)]


@given(policies(), st.lists(charges, min_size=1))
def test_a_rising_battery_never_gives_a_faster_level(policy, percents):
    levels = served(policy, sorted(percents), level=policy.n_levels - 1)
    assert levels == sorted(levels, reverse=True)


@given(charges, st.floats(0.5, 20), st.lists(st.floats(0, 1), min_size=1))
def test_a_charge_that_wavers_within_the_band_switches_at_most_once(threshold, hysteresis, wavering):
    policy = BatteryPolicy((threshold,), hysteresis)
    percents = [min(100.0, threshold + hysteresis * w) for w in wavering]
    levels = served(policy, percents, level=0)
    assert sum(a != b for a, b in zip([0, *levels], levels, strict=False)) <= 1


@given(policies(), charges, charges)
def test_reading_the_same_charge_again_changes_nothing(policy, before, percent):
    level = policy.level(percent, policy.level(before, None))
    assert policy.level(percent, level) == level
    assert 0 <= level < policy.n_levels


@pytest.mark.parametrize("thresholds", [(25, 50), (50, 50), (101,), (-1,), (float("nan"),)])
def test_thresholds_that_do_not_descend_from_100_to_0_are_refused(thresholds):
    with pytest.raises(BundleError, match="thresholds_percent"):
        BatteryPolicy(thresholds)


@pytest.mark.parametrize("hysteresis", [-1, 101, float("nan"), float("inf"), True, "3"])
def test_a_hysteresis_out_of_range_is_refused(hysteresis):
    with pytest.raises(BundleError, match="hysteresis_percent"):
        BatteryPolicy((50,), hysteresis)


def test_charges_and_levels_that_cannot_be_are_refused():
    policy = BatteryPolicy.even(2)
    for percent in (float("nan"), -1, 100.5, True, "50"):
        with pytest.raises(BundleError, match="battery_percent = "):
            policy.level(percent, None)
    for level in (2, -1, 0.5):
        with pytest.raises(
            BundleError, match=f"current_level = {level} is not allowed; give a whole number from 0 to 1"
        ):
            policy.level(50, level)
    with pytest.raises(BundleError, match="n_levels = 0"):
        BatteryPolicy.even(0)


def test_deciding_is_the_level_for_the_charge_with_the_level_before_as_its_state():
    policy, state = BatteryPolicy((50,), hysteresis_percent=3), None
    for percent, expected in ((51, 0), (50, 1), (53, 1), (53.1, 0)):
        level, state = policy.decide(state, Observation(0.0, Battery(percent, charging=False), (0, 0)))
        assert level == expected
    assert policy.decide(1, Observation(0.0, Battery(5, charging=True), (0, 0)))[0] == 0
