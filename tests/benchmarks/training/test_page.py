"""Tests that the page of results says what the stored results say."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks.agreement import agreement, mean_std
from benchmarks.jobs import read
from benchmarks.page import RESULTS
from benchmarks.training import page
from benchmarks.training.results import alone_key, seed_path, supernet_key
from benchmarks.training.strategies import COMPARED_WITH_ALONE, TRAININGS
from benchmarks.training.tasks import TASKS


@pytest.fixture(autouse=True)
def _in_the_repository(monkeypatch):
    monkeypatch.chdir(Path(__file__).parents[3])


@pytest.fixture
def results():
    return [read(seed_path(seed)) for seed in range(3)]


@pytest.fixture
def committed():
    return (RESULTS / "training.md").read_text()


@pytest.mark.parametrize("name", TASKS)
def test_gaps_and_rank_correlations_are_on_the_page(results, committed, name):
    keys = [alone_key(name, i) for i in range(TASKS[name].n_alone)]
    spread = [result[supernet_key(name, COMPARED_WITH_ALONE)]["spread"] for result in results]
    inherited = np.array([page.top1_percent(accuracies) for accuracies in spread])
    alone = np.array([page.top1_percent(result[key]["top1_percent"] for key in keys) for result in results])
    assert agreement(inherited, alone) in committed


@pytest.mark.parametrize("name", TRAININGS)
def test_accuracies_of_each_training_are_on_the_page(results, committed, name):
    trained = [result[supernet_key("cnn", name)] for result in results]
    columns = page.accuracy_columns(trained, np.arange(50))
    (row,) = [line for line in committed.splitlines() if line.startswith(f"| {name} |")]
    cells = row.split(" | ")
    assert [mean_std(columns[column]) for column in ("smallest", "largest")] == [cells[4], cells[8]]
    assert row.endswith(f"| {mean_std(columns['mean of 50'])} |")


def test_columns_pick_random_archs_by_their_macs():
    def tested(*percents):
        return [{"validation": 0.0, "test": percent} for percent in percents]

    trained = [{"spread": tested(1.0, 2.0, 3.0), "random": tested(30.0, 10.0, 20.0)}]
    columns = page.accuracy_columns(trained, by_macs=np.array([1, 2, 0]))
    assert {name: percent.tolist() for name, percent in columns.items()} == {
        "smallest": [1.0],
        "least of 50": [10.0],
        "median of 50": [20.0],
        "most of 50": [30.0],
        "largest": [3.0],
        "mean of 50": [20.0],
    }


def test_the_summary_at_half_the_cost_is_on_the_page(results, committed):
    assert page.half_cost_summary(results) in committed


def test_a_training_without_results_is_left_out(results):
    key = supernet_key("cnn", "sandwich, teacher and labels at half the cost")
    summary = page.half_cost_summary([{k: v for k, v in result.items() if k != key} for result in results])
    assert "`sandwich of 10" in summary
    assert "`sandwich, teacher and labels`" not in summary
    assert page.half_cost_summary([]) == ""
