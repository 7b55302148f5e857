"""A small version of the benchmark of batteries that last the promised hours."""

import numpy as np

from benchmarks import endurance, page
from benchmarks.endurance import LEVELS, drawn_day, outcomes_of
from export.policies.endurance import EndurancePolicy


def test_the_battery_lasts_and_the_best_plan_is_at_most_a_third_of_a_point_ahead(monkeypatch):
    monkeypatch.setattr(endurance, "SEED", 1)
    policy = EndurancePolicy(endurance.HOURS, LEVELS.energies_mj, LEVELS.top1_percent)
    outcomes = outcomes_of(policy, [drawn_day(number) for number in range(24)])
    assert np.mean([outcome.lasted for outcome in outcomes]) >= 0.95
    assert np.mean([outcome.gap for outcome in outcomes]) <= 0.3


def test_days_are_mostly_neither_for_the_most_accurate_nor_for_the_fastest_level():
    budgets = np.array([drawn_day(number).image_budget_mj for number in range(200)])
    assert np.mean(budgets >= max(LEVELS.energies_mj)) < 0.3
    assert budgets.min() >= min(LEVELS.energies_mj)


def test_a_given_error_is_that_of_the_capacity():
    assert drawn_day(0, -0.2).capacity_wh == 0.8 * endurance.CAPACITY_WH


def test_the_page_has_a_row_for_each_policy_and_error(tmp_path, monkeypatch):
    monkeypatch.setattr(page, "RESULTS", tmp_path)
    endurance.main(2)
    text = (tmp_path / "endurance.md").read_text()
    for label in ("`EndurancePolicy`", "`BatteryPolicy.even`", "fastest level alone", "as stated", "-20 %", "+10 %"):
        assert f"| {label} |" in text
