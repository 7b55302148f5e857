import json

import numpy as np
import pytest
import yaml

from ofa.pipeline.accuracy_store import read_accuracies
from ofa.pipeline.recipe import Recipe
from ofa.pipeline.run import Run, open_run
from ofa.pipeline.stage import all_stages
from ofa.report.content import _target_facts


def quiet(done, total, message):
    pass


@pytest.fixture
def judged(finished):
    """A run whose search was made again with 12 archs beside its front, and the front before."""
    before = json.loads((finished / "targets/local/front.json").read_text())
    known = set(read_accuracies(open_run(finished))["float32"])
    content = yaml.safe_load((finished / "recipe.yaml").read_text())
    content["search"]["judge"] = 12
    run = Run(Recipe.model_validate(content), finished)
    run.execute(all_stages()["search"], quiet)
    return run, before, known


def test_archs_beside_the_front_are_measured_and_the_front_is_judged_by_them(judged):
    run, before, known = judged
    space, front = run.family.space, run.target().read_json("front.json")
    added = set(read_accuracies(run)["float32"]) - known
    assert len(added) == front["judged"]["archs"] == 12
    old = [space.row(space.arch(one["arch"])) for one in before["front"]]
    for arch in added:  # each differs from one of the front in one choice, and in what that makes inactive
        assert any((space.neighbors(row) == space.row(arch)).all(axis=1).any() for row in old)
    assert front["verified"] == before["verified"] + 12
    assert 0 < front["judged"]["area_percent"] <= 100 + 1e-9
    assert front["judged"]["minutes"] >= 0


def test_the_gap_is_the_largest_over_the_best_front(judged):
    run, before, _ = judged
    front = run.target().read_json("front.json")
    names = [one["arch"] for one in before["front"]]
    still = [one for one in front["front"] if one["arch"] in names]
    if len(still) == len(front["front"]):  # no arch beside it was better
        assert front["judged"]["gap_percent"] == pytest.approx(0, abs=1e-9)
    else:
        best = max(one["estimated_top1_percent"] for one in front["front"])
        of_found = max((one["estimated_top1_percent"] for one in still), default=-np.inf)
        assert front["judged"]["gap_percent"] >= min(best - of_found, 0)
        assert front["judged"]["gap_percent"] > 0


def test_the_report_says_what_the_front_is_worth(judged):
    run, _, _ = judged
    front = run.target().read_json("front.json")
    facts, verdict = _target_facts(run.target(), front), front["judged"]
    assert facts["front"].startswith(f"{verdict['area_percent']:.1f} % of the area that the best one known dominates")
    assert "known by 12 more archs beside it" in facts["front"]
