import numpy as np
import pytest

from export.policies.day_demo import simulated_demo
from ofa.core.errors import BundleError
from tests.levels import level

LEVELS = [
    level({}, "", latency_ms=ms, energy_mj=mj, top1_percent=top1)
    for ms, mj, top1 in ((20.0, 100.0, 90.0), (10.0, 50.0, 87.0), (5.0, 20.0, 80.0))
]
UNKNOWN = [level({}, "", latency_ms=ms, top1_percent=top1) for ms, top1 in ((20.0, 90.0), (10.0, 87.0), (5.0, 80.0))]


ALIKE = [level({}, "", latency_ms=ms, energy_mj=ms, top1_percent=top1) for ms, top1 in ((5.0, 90.0), (4.9, 89.0))]


@pytest.mark.parametrize("levels", [LEVELS, UNKNOWN, ALIKE, LEVELS[:1]])
def test_the_battery_lasts_at_nearly_the_accuracy_of_the_best_plan(levels):
    day = simulated_demo(levels)
    assert day.lasted
    assert 0 <= day.best_top1_percent - day.top1_percent < 1.0
    assert day.capacity_wh != 50.0


def test_the_parts_of_the_day_add_up_to_the_day():
    day = simulated_demo(LEVELS, steps=7)
    assert [step.hours for step in day.steps] == pytest.approx(np.linspace(0, 8, 8)[1:], abs=0.01)
    images = [step.n_images for step in day.steps]
    assert sum(images) == day.n_images
    assert np.average([step.top1_percent for step in day.steps], weights=images) == pytest.approx(day.top1_percent)
    assert all(sum(step.levels) == pytest.approx(1.0) for step in day.steps)
    charges = [step.battery_percent for step in day.steps]
    assert charges == sorted(charges, reverse=True)


def test_thresholds_of_the_charge_keep_no_promise():
    day = simulated_demo(LEVELS, policy="battery", requests_per_hour=300_000)
    assert not day.lasted
    assert day.steps[-1].battery_percent == 0
    assert day.steps[-1].hours < 8.0
    assert simulated_demo(LEVELS, requests_per_hour=300_000).lasted


def test_a_bound_runs_faster_levels_while_the_processor_is_throttled():
    options = {"capacity_wh": 500.0, "requests_per_hour": 1000.0, "steps": 8}
    free, bounded = simulated_demo(LEVELS, **options), simulated_demo(LEVELS, latency_bound_ms=25.0, **options)
    assert max(step.levels[1] for step in free.steps) < 0.5
    assert max(step.latency_ms for step in free.steps) > 25.0
    assert max(step.levels[1] for step in bounded.steps) > 0.5


def test_a_day_that_no_level_lasts_has_no_best_plan():
    day = simulated_demo(LEVELS, requests_per_hour=5_000_000, steps=21)
    assert (day.lasted, day.best_top1_percent) == (False, None)
    assert len(day.steps) < 21


def test_a_power_replaces_the_energies_of_the_levels():
    assert simulated_demo(UNKNOWN, power_w=5.0, requests_per_hour=10_000.0).lasted
    little, much = (simulated_demo(LEVELS, power_w=w, requests_per_hour=100_000.0) for w in (1.0, 5.0))
    assert little.top1_percent > much.top1_percent


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"policy": "hope"}, "policy = 'hope' is not known; choose from battery, endurance"),
        ({"hours": 0}, "hours = 0 is not allowed"),
        ({"capacity_wh": -1}, "capacity_wh = -1 is not allowed"),
        ({"requests_per_hour": float("inf")}, "requests_per_hour = inf is not allowed"),
        ({"power_w": 0}, "power_w = 0 is not allowed"),
        ({"latency_bound_ms": 0}, "bound_ms = 0 is not allowed"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(BundleError, match=message):
        simulated_demo(LEVELS, **options)
