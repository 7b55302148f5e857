"""Tests of the archs that supernets are judged by."""

import numpy as np
import pytest

import ofa
from benchmarks.inherited.strategies import ALONE, RECIPES, SANDWICH, TRAININGS, train_config
from benchmarks.inherited.tasks import N_RANDOM, N_SPREAD, TASKS


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_archs_are_at_even_distances_in_log_macs_then_random(task):
    space, archs = task.family.space, task.archs
    assert (archs[0], archs[N_SPREAD - 1]) == (space.smallest, space.largest)
    log_macs = np.log(ofa.macs_m(task.family)(space.rows(archs)))
    low, high = log_macs[[0, N_SPREAD - 1]]
    assert log_macs[:N_SPREAD] == pytest.approx(np.linspace(low, high, N_SPREAD), abs=0.02)
    assert len(set(archs)) == len(archs) == N_SPREAD + N_RANDOM


@pytest.mark.parametrize("task", TASKS)
def test_networks_alone_differ_from_the_recipe_in_what_is_named(task):
    recipe, alone = TASKS[task].recipe.train, train_config(task, ALONE)
    sandwich = train_config(task, TRAININGS[SANDWICH][task])
    assert [phase.epochs for phase in alone.phases] == [phase.epochs for phase in sandwich.phases]
    same = {"batch_size", "optimizer", "weight_decay"}
    assert alone.model_dump(include=same) == sandwich.model_dump(include=same)
    same = {"ema_decay", "label_smoothing", "warmup_epochs"}
    assert alone.model_dump(include=same) == recipe.model_dump(include=same)


@pytest.mark.parametrize("task", TASKS)
def test_the_recipe_trains_as_the_comparison_says(task):
    compared = train_config(task, TRAININGS[RECIPES[task]][task])
    assert compared == train_config(task, {})
