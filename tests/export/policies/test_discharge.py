from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from export.policies.battery import Battery
from export.policies.discharge import Discharge

FULL = Battery(100.0, charging=False)
PRIOR = Discharge.prior(FULL, hours=8.0, background=None, scale_sd=0.25)


def battery(percent, step=1.0):
    return Battery(percent, charging=False, step_percent=step)


def watched(belief, true_background, true_scale, *, hours=4.0, step_hours=0.02, step=1.0):
    """The belief after hours of a steady background and a usage that is twice as high every other half hour."""
    charge, before = 100.0, 100.0
    for i in range(int(hours / step_hours)):
        used = (8.0 if (i * step_hours) % 1 < 0.5 else 4.0) * step_hours
        charge -= true_background * step_hours + true_scale * used
        reading = battery(round(charge / step) * step, step)
        belief = belief.after(step_hours, used).read(before, reading)
        before = reading.percent
    return belief, charge


def test_the_first_guess_is_an_even_discharge_that_is_half_background():
    assert PRIOR.background_percent_per_hour == 100 / 8 / 2
    assert PRIOR.expected_percent(8.0, used_percent=50.0) == pytest.approx(0.0)
    known = Discharge.prior(FULL, hours=8.0, background=9.0, scale_sd=0.25)
    assert known.background_percent_per_hour == 9.0


@pytest.mark.parametrize(("background", "scale"), [(3.0, 1.25), (9.0, 0.8), (6.0, 1.0), (0.5, 1.1)])
@pytest.mark.parametrize("step", [1.0, 0.1])
def test_it_learns_what_the_machine_and_the_levels_take_from_a_coarse_charge(background, scale, step):
    belief, charge = watched(PRIOR, background, scale, step=step)
    assert belief.mean[0] == pytest.approx(charge, abs=1.5 * step)
    rate = belief.background_percent_per_hour + belief.scale * 6.0
    assert rate == pytest.approx(background + scale * 6.0, rel=0.12)


def test_a_changing_usage_tells_the_scale_apart_from_the_background():
    unsure = Discharge.prior(FULL, hours=8.0, background=None, scale_sd=1.0)
    belief, _ = watched(unsure, 3.0, 2.0, hours=6.0, step=0.1)
    assert belief.scale == pytest.approx(2.0, rel=0.1)
    assert belief.mean[2] == pytest.approx(3.0, abs=1.0)


@given(st.floats(0.01, 5.0), st.floats(0.01, 5.0), st.floats(0, 20), st.floats(0, 20))
def test_two_steps_are_one_long_step(first, second, used_first, used_second):
    start, _ = watched(PRIOR, 6.0, 1.0, hours=0.5)
    two = start.after(first, used_first).after(second, used_second)
    one = start.after(first + second, used_first + used_second)
    assert np.allclose(two.mean, one.mean)
    assert np.allclose(two.covariance, one.covariance)


@given(st.floats(0.0, 24.0), st.floats(0, 80))
def test_the_expected_charge_is_the_mean_of_the_prediction(hours, used):
    start, _ = watched(PRIOR, 6.0, 1.0, hours=0.5)
    assert start.expected_percent(hours, used) == pytest.approx(start.after(hours, used).mean[0])


def test_the_variance_of_a_prediction_is_that_of_simulated_backgrounds():
    rng, hours, n_steps, n = np.random.default_rng(0), 2.0, 400, 4000
    certain = replace(PRIOR, covariance=np.zeros((4, 4)))
    drift, fallen, decay = np.zeros(n), np.zeros(n), np.exp(-hours / n_steps)
    for _ in range(n_steps):
        fallen += drift * hours / n_steps
        drift = decay * drift + PRIOR.drift_sd * np.sqrt(1 - decay**2) * rng.standard_normal(n)
    assert np.allclose(certain.after(hours, 0.0).covariance[:2, :2], np.cov(-fallen, drift), rtol=0.1)


def test_a_change_by_one_step_places_the_charge_between_the_readings():
    belief = PRIOR.after(0.08, 0.5).read(100.0, battery(99.0))
    assert belief.mean[0] == pytest.approx(99.5, abs=0.1)


def test_an_unchanged_reading_tells_nothing_until_it_is_overdue():
    soon, late = PRIOR.after(0.01, 0.0), PRIOR.after(0.5, 0.0)
    assert soon.read(100.0, battery(100.0)) is soon
    learned = late.read(100.0, battery(100.0))
    assert learned.mean[0] > late.mean[0]
    assert learned.background_percent_per_hour < late.background_percent_per_hour


@pytest.mark.parametrize("percent", [70.0, 100.0])
def test_a_jump_is_told_from_a_discharge(percent):
    belief, _ = watched(PRIOR, 6.0, 1.0, hours=2.0)
    assert belief.after(0.02, 0.1).read(76.0, battery(percent)) is None


def test_a_restart_keeps_what_was_learned_but_not_the_charge():
    belief, _ = watched(PRIOR, 3.0, 1.25)
    again = belief.restarted(battery(90.0))
    assert again.mean[0] == 90.0
    assert np.array_equal(again.mean[1:], belief.mean[1:])
    assert np.array_equal(again.covariance[1:, 1:], belief.covariance[1:, 1:])
    assert np.array_equal(again.covariance[0, 1:], np.zeros(3))


@given(st.lists(st.tuples(st.floats(0, 2), st.floats(0, 100), st.floats(0, 10)), max_size=60))
def test_any_readings_leave_a_belief_that_can_be(readings):
    belief, before = PRIOR, 100.0
    for hours, percent, used in readings:
        reading = battery(float(round(percent)))
        belief = belief.after(hours, used).read(before, reading) or belief.restarted(reading)
        before = reading.percent
        assert np.isfinite(belief.mean).all()
        assert belief.scale > 0
        assert belief.mean[2] >= 0
        assert np.linalg.eigvalsh(belief.covariance).min() > -1e-6
