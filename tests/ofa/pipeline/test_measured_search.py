import json
from types import SimpleNamespace

import numpy as np
import pytest
import yaml
from pydantic import ValidationError

from ofa import Choice, Family, SearchSpace
from ofa.core.errors import InfeasibleError
from ofa.pipeline.accuracy_store import Sample, read_accuracies
from ofa.pipeline.measured_search import search_measurements
from ofa.pipeline.recipe import Recipe, SearchConfig
from ofa.pipeline.run import Run, open_run
from ofa.pipeline.stage import all_stages
from ofa.report.content import _target_facts


def quiet(done, total, message):
    pass


def content_of(folder, target=(), **search):
    content = yaml.safe_load((folder / "recipe.yaml").read_text())
    content["search"] = {"over": "measurements", "rounds": 3, "verify": 4} | search
    content["targets"][0] |= dict(target)
    return content


def searched(folder, target=(), **search):
    """Make the search of a run again, over measurements; returns the run, and the archs that were added."""
    (folder / "accuracies/local.json").unlink(missing_ok=True)
    known = set(read_accuracies(open_run(folder))["float32"])
    run = Run(Recipe.model_validate(content_of(folder, target, **search)), folder)
    run.execute(all_stages()["search"], quiet)
    return run, set(read_accuracies(run)["float32"]) - known


OTHERS = ("local", "regularized_evolution", "reinforce", "random", "grid")


@pytest.mark.parametrize(
    "algorithm", ["nsga2", "bayesian", *(pytest.param(name, marks=pytest.mark.slow) for name in OTHERS)]
)
def test_every_algorithm_asks_for_the_archs_that_are_measured(finished, algorithm):
    run, added = searched(finished, algorithm=algorithm)
    assert len(added) == 12 or (algorithm == "nsga2" and 8 <= len(added) < 12)  # which asks for some twice
    front = run.target().read_json("front.json")
    samples = read_accuracies(run)["float32"]
    assert front["verified"] == len(added)
    assert front["n_evaluated"] >= len(samples)
    assert {run.family.space.arch(one["arch"]) for one in front["front"]} <= samples.keys()
    assert front["levels"]
    facts = _target_facts(run.target(), front)
    assert facts["search"] == f"{front['n_evaluated']} subnets measured, {len(added)} of them asked for by the search"


def test_a_stopped_search_goes_on_with_the_same_archs(finished):
    run, added = searched(finished, algorithm="regularized_evolution")
    path = finished / "accuracies/local.json"
    content, front = json.loads(path.read_text()), run.target().read_json("front.json")
    path.write_text(json.dumps(content | {"samples": content["samples"][:5]}))
    measured = []
    run.execute(all_stages()["search"], lambda done, total, message: measured.append(done))
    assert set(read_accuracies(run)["float32"]) >= added
    assert len(measured) == 7
    assert run.target().read_json("front.json") == front


def test_limits_that_all_levels_have_bound_what_is_asked_for(finished):
    limits = [{"macs_m": 1e9, "latency_ms": 1e9}, {"macs_m": 1e8}]
    _, added = searched(finished, {"limits": limits}, algorithm="random")
    assert len(added) == 12
    with pytest.raises(InfeasibleError, match=r"macs_m must be at most 1.*e-09"):
        searched(finished, {"limits": [{"macs_m": 1e-9}]}, algorithm="random")


def test_another_precision_is_searched_by_its_own_accuracies(finished):
    table = json.loads((finished / "targets/local/latency_table-float32.json").read_text())
    table["device"]["precision"] = "float16"
    (finished / "half.json").write_text(json.dumps(table))
    target = {"name": "half", "precision": "float16", "table": str(finished / "half.json")}
    run = Run(Recipe.model_validate(content_of(finished, target, algorithm="random", rounds=1)), finished)
    for stage in ("profile", "search"):
        run.execute(all_stages()[stage], quiet)
    accuracies, front = read_accuracies(run), run.target().read_json("front.json")
    assert len(accuracies["float16"]) == 4 + 4  # those from which the accuracy drop is learned come first
    assert accuracies["float16"].keys() <= accuracies["float32"].keys()
    assert {one["precision"] for one in front["front"]} <= {"float32", "float16"}
    assert front["n_evaluated"] == len(accuracies["float16"])


@pytest.mark.parametrize(
    ("target", "search", "message"),
    [
        ({"precision": "auto"}, {}, "searches no precision; choose that of target 'local'"),
        ({}, {"algorithm": "successive_halving"}, "measures on few images first.*choose another algorithm"),
        ({}, {"over": "measurement"}, "Input should be 'predictions' or 'measurements'"),
    ],
)
def test_what_cannot_be_searched_is_refused_before_anything_is_done(finished, target, search, message):
    with pytest.raises(ValidationError, match=message):
        Recipe.model_validate(content_of(finished, target, **search))


def test_a_space_that_is_measured_to_the_end_ends_the_search():
    space = SearchSpace([Choice("resolution", (8,)), Choice("depth", (1, 2, 3)), Choice("width", (4, 8, 12, 16))])
    config = SearchConfig(over="measurements", algorithm="local", rounds=1000, verify=3)
    recipe = SimpleNamespace(search=config, sample=SimpleNamespace(images=100))
    family, data_info = Family("small", space, ()), SimpleNamespace(n_validation=100)
    run = SimpleNamespace(family=family, recipe=recipe, data_info=data_info)
    target = SimpleNamespace(run=run, recipe=recipe, config=SimpleNamespace(objective="macs_m", limits=None))
    accuracies = {"float32": {space.smallest: Sample(50.0, 1.0)}}

    def add(precision, archs):
        accuracies[precision] |= {arch: Sample(50.0 + arch["depth"] * arch["width"], 1.0) for arch in archs}

    costs = {"macs_m": lambda rows: 1.0 + rows.sum(axis=1)}
    n_told = search_measurements(target, costs, accuracies, "float32", add, np.random.default_rng(0))
    assert n_told == len(accuracies["float32"]) == space.size == 12
