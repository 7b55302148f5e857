"""Tests of the settings of the comparison; nothing is trained."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.jobs import read
from benchmarks.training.__main__ import strategies
from benchmarks.training.results import COSTS, phase_key, seed_path
from benchmarks.training.strategies import STRATEGIES, TRAININGS, epochs_for, train_config

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_each_strategy_has_valid_settings_with_the_epochs_asked_for(strategy):
    epochs = [7 + i for i in range(len(STRATEGIES[strategy]["phases"]))]
    config = train_config(strategy, epochs, different_archs=True)
    assert [phase.epochs for phase in config.phases] == epochs
    assert config.different_archs
    assert (config.validated_archs, config.batch_size, config.clip_grad_norm) == (0, 64, 5.0)


def test_the_settings_of_a_strategy_override_the_common_ones():
    assert train_config("sandwich", [1]).warmup_epochs == 0.5
    assert train_config("sandwich of 10, teacher and labels", [1]).warmup_epochs == 2
    assert train_config("strictly fair, labels", [1]).lr == 0.1
    assert train_config("progressive shrinking", [1] * 6).phases[1].lr == pytest.approx(0.37 * 0.2)


@given(strategy=st.sampled_from(sorted(STRATEGIES)), budget_seconds=st.floats(200, 10_000))
def test_a_training_costs_its_budget_up_to_half_an_epoch_of_each_phase(strategy, budget_seconds):
    epoch_seconds = read(ROOT / COSTS)["cnn"]
    epochs = epochs_for(strategy, budget_seconds, epoch_seconds)
    seconds = [epoch_seconds[phase_key(strategy, i)] for i in range(len(epochs))]
    cost = sum(n * each for n, each in zip(epochs, seconds, strict=True))
    assert abs(cost - budget_seconds) <= sum(seconds) / 2 + 1e-6


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_each_phase_gets_an_epoch_however_small_the_budget(strategy):
    assert set(epochs_for(strategy, 1e-3, read(ROOT / COSTS)["cnn"])) == {1}


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_stored_results_are_those_of_the_trainings(monkeypatch, seed):
    monkeypatch.chdir(ROOT)
    jobs, stored = list(strategies(seed)), read(seed_path(seed))
    assert len({job.key for job in jobs}) == len(TRAININGS)
    for job in jobs:
        assert (job.path, job.settings["seed"]) == (seed_path(seed), seed)
        assert stored[job.key]["epochs"] == job.settings["epochs"], job.key
    assert sum(job.processes == 2 for job in jobs) == 2
    assert sum(job.settings["different_archs"] for job in jobs) == 1
