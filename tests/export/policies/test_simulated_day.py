import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from export.policies.latency_guard import LatencyGuard
from export.policies.policy import BatteryPolicy
from export.policies.simulated_day import Day, Levels, best_plan, draw_day, simulate
from ofa.core.errors import BundleError

LEVELS = Levels(top1_percent=(90.0, 86.0, 70.0), energies_mj=(40.0, 20.0, 5.0), latencies_ms=(30.0, 15.0, 5.0))
OPTIONS = {"hours": 8.0, "capacity_wh": 15.0, "background_w": 0.9, "requests_per_hour": 100_000.0, "steps": 240}


def drawn(seed, **changes):
    return draw_day(np.random.default_rng(seed), **OPTIONS | changes)


def even_day(capacity_wh, n=100, images=10):
    return Day(60.0, capacity_wh, np.full(n, 3.0), np.full(n, images), np.ones(n))


def test_the_same_seed_draws_the_same_day():
    assert np.array_equal(drawn(3).images, drawn(3).images)
    assert np.array_equal(drawn(3).background_w, drawn(3).background_w)


def test_a_day_is_as_described():
    day = drawn(0)
    assert day.hours == pytest.approx(8.0)
    assert day.capacity_wh == 15.0
    assert 0.9 * 0.6 <= day.background_w.min() < day.background_w.max() <= 0.9 * 1.4
    assert day.images.sum() == pytest.approx(900_000, rel=0.01)  # twice as many for an eighth of the day
    assert np.count_nonzero(day.images > 1.5 * np.median(day.images)) == 30
    assert np.count_nonzero(day.slowdown > 1) == 30
    backgrounds_w = [drawn(seed).background_w for seed in range(50)]
    assert min(background.min() for background in backgrounds_w) < 0.9 * 0.65
    assert max(background.max() for background in backgrounds_w) > 0.9 * 1.35
    errors = [drawn(seed, capacity_error=0.2).capacity_wh / 15 - 1 for seed in range(50)]
    assert -0.2 <= min(errors) < -0.15 < 0.15 < max(errors) <= 0.2


def test_energy_is_conserved():
    day = drawn(1)
    served = simulate(BatteryPolicy.even(3), day, LEVELS, stated_capacity_wh=15.0)
    images_wh = np.array(LEVELS.energies_mj)[served.levels] @ day.images / 3.6e6
    used_wh = day.background_w.sum() * day.step_s / 3600 + images_wh
    assert served.lasted
    assert served.charge_percent[-1] == pytest.approx(100 * (1 - used_wh / 15.0))
    top1_percent = np.array(LEVELS.top1_percent)[served.levels]
    assert served.top1_percent == pytest.approx(np.average(top1_percent, weights=day.images))


def test_images_after_the_battery_is_empty_count_as_wrong():
    day = even_day(capacity_wh=2.5)  # 50 minutes at 3 W, and the images
    served = simulate(BatteryPolicy.even(3), day, LEVELS, stated_capacity_wh=None)
    assert not served.lasted
    assert served.charge_percent[-1] == 0
    assert len(served.levels) == len(served.images) == 50
    right = np.array(LEVELS.top1_percent)[served.levels[:-1]].sum()
    assert served.top1_percent == pytest.approx(right / 100)
    assert served.images.tolist() == [10] * 49 + [0]


def test_the_best_plan_mixes_two_neighbors_so_that_the_battery_just_lasts():
    background_wh, images_wh_per_mj = 5.0, 1000 / 3.6e6
    assert best_plan(even_day(background_wh + 30 * images_wh_per_mj), LEVELS) == pytest.approx([0.5, 0.5, 0.0])
    assert best_plan(even_day(background_wh + 5 * images_wh_per_mj), LEVELS) == pytest.approx([0.0, 0.0, 1.0])
    assert best_plan(even_day(100.0), LEVELS) == pytest.approx([1.0, 0.0, 0.0])
    assert best_plan(even_day(background_wh + 4 * images_wh_per_mj), LEVELS) is None


@settings(max_examples=30)
@given(st.integers(0, 1000), st.sampled_from([3, 10, 100]))
def test_no_policy_that_lasts_beats_the_best_plan(seed, percent):
    day = drawn(seed, capacity_error=0.2)
    shares = best_plan(day, LEVELS)
    for policy in (BatteryPolicy.even(3), BatteryPolicy((percent, 1))):
        served = simulate(policy, day, LEVELS, stated_capacity_wh=15.0)
        if served.lasted:
            assert served.top1_percent <= shares @ np.array(LEVELS.top1_percent) + 1e-9


def test_a_guard_keeps_a_throttled_processor_below_the_bound():
    day = drawn(2, capacity_wh=30.0)
    guarded = LatencyGuard(BatteryPolicy((2.0, 1.0)), LEVELS.latencies_ms, bound_ms=40.0)
    served = simulate(guarded, day, LEVELS, stated_capacity_wh=15.0)
    latencies_ms = np.array(LEVELS.latencies_ms)[served.levels] * day.slowdown
    assert np.count_nonzero(latencies_ms > 40.0) <= 3  # so many decisions in a row must have seen it
    assert np.count_nonzero(served.levels == 1) == pytest.approx(30, abs=2)


@pytest.mark.parametrize("name", ["hours", "capacity_wh", "requests_per_hour"])
def test_days_that_cannot_be_are_refused(name):
    with pytest.raises(BundleError, match=f"{name} = 0 is not allowed"):
        drawn(0, **{name: 0})
