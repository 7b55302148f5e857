import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from export.policies.battery import Battery
from export.policies.endurance import EndurancePolicy
from export.policies.policy import Observation
from ofa.core.errors import BundleError
from tests.levels import level

ENERGIES_MJ, TOP1 = (260.0, 170.0, 110.0, 65.0, 30.0), (79.8, 78.7, 77.3, 75.3, 71.8)
POLICY = EndurancePolicy(8.0, ENERGIES_MJ, TOP1)
MINUTE = 60.0


class Device:
    """A machine that serves a number of images per minute and draws some power, minute by minute."""

    def __init__(self, policy, *, capacity_wh=15.0, stated_wh=15.0, background_w=0.8, images=400, power_w=None):
        self.policy, self.state, self.level = policy, None, None
        self.capacity_wh, self.stated_wh, self.power_w = capacity_wh, stated_wh, power_w
        self.background_w, self.images = background_w, images
        self.time_s, self.charge_wh, self.served, self.levels = 0.0, capacity_wh, [0] * policy.n_levels, []

    def reading(self, charging=False):
        percent = float(np.clip(round(100 * self.charge_wh / self.capacity_wh), 0, 100))
        return Battery(percent, charging, capacity_wh=self.stated_wh, power_w=self.power_w)

    def decide(self, reading):
        seen = Observation(self.time_s, reading, tuple(self.served), self.level)
        self.level, self.state = self.policy.decide(self.state, seen)
        self.levels.append(self.level)

    def run(self, hours, charging_w=0.0):
        """Serve for some hours, and return the levels that served."""
        before = len(self.levels)
        for _ in range(round(60 * hours)):
            self.decide(self.reading(charging_w > 0))
            used_wh = self.images * self.policy.energies_mj[self.level] / 3.6e6 if not self.policy.relative else 0.0
            self.charge_wh += (charging_w - self.background_w) / 60 - used_wh
            self.charge_wh = min(self.capacity_wh, self.charge_wh)
            self.served[self.level] += self.images
            self.time_s += MINUTE
        return self.levels[before:]

    @property
    def top1_percent(self):
        return float(np.average(TOP1, weights=self.served))


def test_a_battery_that_is_large_enough_serves_the_most_accurate_level_all_day():
    device = Device(POLICY, capacity_wh=30.0, stated_wh=30.0)
    levels = device.run(8.0)
    assert levels.count(0) > 0.97 * len(levels)
    assert device.charge_wh > 0


@pytest.mark.parametrize("capacity_wh", [12.0, 13.5, 15.0, 18.0])
@pytest.mark.parametrize("stated_wh", [15.0, None])
def test_the_day_gets_the_share_of_neighboring_levels_that_just_lasts(capacity_wh, stated_wh):
    device = Device(POLICY, capacity_wh=capacity_wh, stated_wh=stated_wh)
    device.run(8.0)
    budget_mj = (capacity_wh - 0.8 * 8) * 3.6e6 / (400 * 480)
    best = np.interp(budget_mj, ENERGIES_MJ[::-1], TOP1[::-1])
    assert 0 < device.charge_wh < 0.02 * capacity_wh
    assert best - 0.35 < device.top1_percent <= best


def test_requests_that_double_cost_accuracy_and_not_hours():
    device = Device(POLICY)
    calm = device.run(3.0)
    device.images = 800
    busy = device.run(5.0)
    assert device.charge_wh > 0
    assert np.mean(busy) > np.mean(calm) + 0.5


def test_a_battery_that_cannot_last_is_served_by_the_fastest_level():
    device = Device(POLICY, capacity_wh=5.0, stated_wh=5.0)
    assert set(device.run(3.0)[30:]) == {4}


def test_levels_that_a_mixture_beats_never_serve():
    policy = EndurancePolicy(8.0, (8.0, 7.9, 2.0, 2.5), (90.0, 70.0, 80.0, 75.0))
    assert policy.candidates == (2, 0)


def test_without_requests_the_most_accurate_level_waits():
    device = Device(POLICY, images=0)
    assert set(device.run(8.0)) == {0}


def test_on_mains_power_and_after_the_hours_the_most_accurate_level_serves():
    device = Device(POLICY, capacity_wh=8.0, stated_wh=8.0, images=300)
    assert set(device.run(2.0)[30:]) == {4}
    assert set(device.run(0.5, charging_w=1.0)) == {0}
    assert 4 in device.run(1.0)
    device.background_w = 0.0
    device.run(4.5)
    assert set(device.run(0.5)) == {0}


def test_the_hours_start_on_battery_power_and_charging_does_not_move_their_end():
    device = Device(POLICY)
    device.run(1.0, charging_w=5.0)
    assert device.state.end_s is None
    device.run(1.0)
    device.run(1.0, charging_w=5.0)
    device.run(1.0)
    assert device.state.end_s == 9 * 3600


def test_the_hours_start_before_anything_is_known_of_the_battery():
    device = Device(POLICY, stated_wh=None)
    device.run(0.5)
    assert device.state.discharge is not None
    assert device.state.end_s == 8 * 3600


def test_a_little_charging_teaches_nothing_either():
    device = Device(POLICY)
    device.run(4.0)
    before = device.state.discharge
    device.run(0.1, charging_w=4.0)
    device.decide(device.reading())
    assert np.array_equal(device.state.discharge.mean[1:], before.mean[1:])


def test_what_charging_adds_is_spent_and_nothing_is_learned_from_it():
    device = Device(POLICY)
    device.run(4.0)
    before = device.state.discharge
    device.run(1.0, charging_w=6.0)
    device.decide(device.reading())
    assert np.array_equal(device.state.discharge.mean[1:], before.mean[1:])
    assert np.mean(device.run(2.9)) < 1.0
    assert device.charge_wh > 0


def test_a_machine_that_sleeps_for_hours_learns_nothing_from_it_and_lasts():
    device = Device(POLICY)
    device.run(3.0)
    device.time_s += 2 * 3600
    before = device.state
    device.decide(device.reading())
    assert np.array_equal(device.state.discharge.mean[1:], before.discharge.mean[1:])
    assert device.state.rate == before.rate
    device.run(3.0)
    assert 0 < device.charge_wh < 3.0


@pytest.mark.parametrize("jump_wh", [-3.0, 3.0])
def test_a_gauge_that_jumps_is_believed_from_then_on(jump_wh):
    device = Device(POLICY)
    device.run(3.0)
    before = device.state.discharge
    device.charge_wh += jump_wh
    device.decide(device.reading())
    assert np.array_equal(device.state.discharge.mean[1:], before.mean[1:])
    device.run(5.0)
    assert 0 < device.charge_wh < 1.0


def test_a_reading_that_wavers_by_a_step_changes_little():
    steady, wavering = Device(POLICY), Device(POLICY)
    steady.run(8.0)
    exact = Device.reading
    rng = np.random.default_rng(0)
    wavering.reading = lambda charging=False: Battery(
        float(np.clip(exact(wavering).percent + rng.choice([-1, 0, 0, 0, 1]), 0, 100)), charging, capacity_wh=15.0
    )
    wavering.run(8.0)
    assert wavering.charge_wh > 0
    assert wavering.top1_percent == pytest.approx(steady.top1_percent, abs=0.6)


def test_a_power_that_is_told_replaces_the_first_guess_of_the_background():
    for power_w, expected in ((1.5, 10.0), (None, 100 / 8 / 2)):
        device = Device(POLICY, power_w=power_w)
        device.decide(device.reading())
        assert device.state.discharge.background_percent_per_hour == pytest.approx(expected)


def test_levels_switch_a_few_times_an_hour_at_most():
    device = Device(POLICY)
    levels = device.run(8.0)
    assert np.count_nonzero(np.diff(levels)) < 40
    changes = np.flatnonzero(np.diff(levels))
    assert np.diff(changes).min() >= 5


def test_expected_requests_count_from_the_first_decision():
    seen = Observation(0.0, Battery(100.0, charging=False, capacity_wh=15.0), (0,) * 5)
    levels = [
        EndurancePolicy(8.0, ENERGIES_MJ, TOP1, requests_per_hour=n).decide(None, seen)[0] for n in (10, 25_000, 10**6)
    ]
    assert levels[0] == 0
    assert levels[0] < levels[1] < levels[2] == 4


def test_the_same_states_and_observations_give_the_same_decisions():
    device = Device(POLICY)
    device.run(2.0)
    seen = Observation(device.time_s, device.reading(), tuple(device.served))
    first, second = (POLICY.decide(device.state, seen) for _ in range(2))
    assert first[0] == second[0]
    assert np.array_equal(first[1].discharge.mean, second[1].discharge.mean)


@settings(max_examples=30)
@given(
    st.lists(
        st.tuples(st.floats(-100, 20_000), st.integers(0, 100), st.booleans(), st.integers(-5, 10_000)), max_size=60
    ),
    st.sampled_from([None, 15.0]),
)
def test_any_observations_give_a_level(observations, capacity_wh):
    state, time_s, served = None, 0.0, 0
    for seconds, percent, charging, images in observations:
        time_s, served = time_s + seconds, served + images
        reading = Battery(float(percent), charging, capacity_wh=capacity_wh)
        chosen, state = POLICY.decide(state, Observation(time_s, reading, (served,) * 5))
        assert chosen in range(5)
        assert not charging or chosen == 0


def test_levels_of_a_bundle_give_their_energies_or_latencies():
    levels = [level({}, "", latency_ms=4.0 - i, energy_mj=8.0 - i, top1_percent=90.0 - i) for i in range(2)]
    policy = EndurancePolicy.of(levels, hours=8.0, requests_per_hour=5.0, capacity_wh=20.0)
    assert policy == EndurancePolicy(8.0, (8.0, 7.0), (90.0, 89.0), requests_per_hour=5.0, capacity_wh=20.0)
    assert EndurancePolicy.of(levels, hours=8.0, power_w=2.0) == EndurancePolicy(8.0, (8.0, 6.0), (90.0, 89.0))
    unknown = [level({}, "", latency_ms=4.0 - i, top1_percent=90.0 - i) for i in range(2)]
    assert EndurancePolicy.of(unknown, hours=8.0) == EndurancePolicy(8.0, (4.0, 3.0), (90.0, 89.0), relative=True)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"hours": 0}, "hours = 0 is not allowed; give a number from 0.01"),
        ({"reserve_percent": 101}, "reserve_percent = 101"),
        ({"requests_per_hour": 0}, "requests_per_hour = 0"),
        ({"capacity_wh": float("nan")}, "capacity_wh = nan"),
        ({"energies_mj": (1.0, 0.0)}, "energies_mj = 0.0"),
        ({"top1_percent": (1.0, 200.0)}, "top1_percent = 200.0"),
        ({"energies_mj": (1.0,)}, "1 energies and 2 accuracies are not allowed; give one of each per level"),
        ({"energies_mj": (), "top1_percent": ()}, "0 energies and 0 accuracies"),
    ],
)
def test_values_out_of_range_are_refused(values, message):
    with pytest.raises(BundleError, match=re.escape(message)):
        EndurancePolicy(**{"hours": 8.0, "energies_mj": (2.0, 1.0), "top1_percent": (90.0, 80.0)} | values)


def test_observations_that_cannot_be_are_refused():
    for percent in (float("nan"), -1.0, 101.0):
        with pytest.raises(BundleError, match="battery_percent = "):
            POLICY.decide(None, Observation(0.0, Battery(percent, charging=False), (0,) * 5))
    with pytest.raises(BundleError, match="the policy is for 5 levels, images are counted for 2"):
        POLICY.decide(None, Observation(0.0, Battery(50.0, charging=False), (0, 0)))
