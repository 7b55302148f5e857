"""Tests of the cells of the page."""

import numpy as np

from benchmarks.inherited import page, results
from benchmarks.inherited.page import gap_cells
from ofa.core.files import write_json


def test_cells_are_mean_gap_worst_gap_gaps_in_order_and_largest_fall():
    inherited = np.array([[90.0, 91.0, 90.6], [90.2, 91.2, 90.8]])  # two seeds
    alone = np.array([[90.0, 91.0, 91.0], [90.0, 91.0, 91.0]])
    assert gap_cells(inherited, alone) == "-0.03 | -0.30 | +0.1 +0.1 -0.3 | 0.40"


def test_accuracy_that_only_rises_has_no_fall():
    rising = np.array([[90.0, 91.0, 92.0]])
    assert gap_cells(rising, rising).endswith(" | 0.00")


def test_archs_that_were_not_trained_alone_are_left_out():
    inherited = np.array([[90.0, 91.0, 92.0]])
    alone = np.array([[90.0, np.nan, 92.4], [90.2, np.nan, np.nan]])  # of the last arch one seed only
    assert gap_cells(inherited, alone) == "-0.25 | -0.40 | -0.1 ? -0.4 | 0.00"


def test_accuracies_are_rows_of_the_seeds_that_are_there(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    results.FOLDER.mkdir(parents=True)
    assert results.inherited_percent("cnn", "spread", range(3)).shape[0] == 0
    assert results.alone_percent("cnn", range(3), 2).shape == (0, 2)
    write_json(results.alone_path("cnn"), {"arch 1, seed 2": {"validation": 90.0, "test": 91.0}})
    write_json(results.supernets_path("cnn"), {"spread, seed 1": [{"test": 90.0}, {"test": 92.0}]})
    assert results.inherited_percent("cnn", "spread", range(3)).tolist() == [[90.0, 92.0]]
    assert np.array_equal(results.alone_percent("cnn", range(3), 2), [[np.nan, 91.0]], equal_nan=True)


def test_a_finetuned_subnet_is_compared_with_what_it_inherited_itself(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(page, "RECIPES", {"cnn": "spread"})
    results.FOLDER.mkdir(parents=True)
    supernets = {f"spread, seed {seed}": [{"test": 90.0 + seed}] for seed in (0, 1)}
    write_json(results.supernets_path("cnn"), supernets)
    of_others = {"sandwich, arch 0, 2 epochs, seed 0": {"test": 80.0, "minutes": 1.0}}
    of_recipe = {"spread, arch 0, 2 epochs, seed 1": {"test": 91.5, "minutes": 3.0}}
    write_json(results.finetuned_path("cnn"), of_others | of_recipe)
    heading, rows = page._finetuning("cnn", np.array([0.47]), np.array([[92.0]]), range(2))
    assert "finetuned" in heading
    assert "| 0.47 | 2 | 1 | 91.50 | +0.50 | -0.50 | 3.0 |" in rows


def test_gaps_on_training_images_are_of_the_archs_that_were_scored_there(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(page, "RECIPES", {"cnn": "spread"})
    results.FOLDER.mkdir(parents=True)
    macs_m, without = np.linspace(2.0, 1.0, page.N_SPREAD + page.N_RANDOM), [{"test": 90.0}] * 20
    write_json(results.supernets_path("cnn"), {"spread, seed 0": without})
    write_json(results.alone_path("cnn"), {"arch 1, seed 0": {"test": 91.0}})
    assert page._fits("cnn", macs_m, range(2)) == []
    scored = [{"test": 91.0, "train": 92.0}] * 20
    write_json(results.supernets_path("cnn"), {"spread, seed 0": without, "spread, seed 1": scored})
    alone = {f"arch {arch}, seed 1": {"test": 91.0 + arch, "train": 92.5 + arch} for arch in (1, 0)}
    write_json(results.alone_path("cnn"), {"arch 2, seed 0": {"test": 91.0}, **alone})
    lines = page._fits("cnn", macs_m, range(2))[1].splitlines()
    assert lines[2:] == [
        "| 1.95 | 92.00 | 93.50 | -1.50 | -1.50 |",
        "| 2.00 | 92.00 | 92.50 | -0.50 | -0.50 |",
        "| mean | | | -1.00 | -1.00 |",
    ]


def test_ranks_are_compared_once_all_archs_are_there():
    inherited = np.array([[1.0, 2.0, 3.0, 4.0], [1.0, 2.0, 3.0, 4.0]])
    alone = np.array([[1.0, 2.0, 4.0, 3.0], [2.0, 1.0, 3.0, np.nan]])
    assert page._ranking(inherited, np.array([[1.0, 2.0, 3.0, np.nan]])) == []
    _, lines = page._ranking(inherited, alone)
    first, second = lines.splitlines()
    assert "means over the seeds that are there: 0.548; between one seed of supernets and the same: 0.548 ± 0" in first
    assert second.endswith("over 3 archs: 0.333.")
