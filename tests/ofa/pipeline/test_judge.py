import json
import time

import pytest
import yaml

from ofa.pipeline.accuracy_store import read_accuracies
from ofa.pipeline.judge import Doubts
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


def test_the_verdict_on_known_fronts():
    def entries(*points):
        return [
            {"arch": {"a": i}, "precision": "float32", "cost": x, "estimated_top1_percent": y} for i, x, y in points
        ]

    doubts = Doubts.__new__(Doubts)
    doubts._start, doubts._key, doubts.archs = time.monotonic() - 90, "cost", {"float32": [{}] * 3}
    doubts.found = entries((0, 1.0, 70.5), (1, 2.0, 80.0))  # the first is estimated anew, and lower
    known = entries((0, 1.0, 70.0), (1, 2.0, 80.0), (2, 1.0, 72.0), (3, 3.0, 81.0))
    verdict = doubts.verdict(known, entries((2, 1.0, 72.0), (1, 2.0, 80.0), (3, 3.0, 81.0)))
    of_found = 1.0 * (70 - 68.9) + 1.2 * (80 - 68.9)  # up to a corner a tenth beyond the worst of all
    of_best = 1.0 * (72 - 68.9) + 1.0 * (80 - 68.9) + 0.2 * (81 - 68.9)
    assert verdict["area_percent"] == pytest.approx(100 * of_found / of_best)
    assert verdict["gap_percent"] == pytest.approx(2)
    assert (verdict["archs"], verdict["minutes"]) == (3, 1.5)
    same = doubts.verdict(known[:2], known[:2])
    assert (same["area_percent"], same["gap_percent"]) == (100, 0)


def test_the_report_says_what_the_front_is_worth(judged):
    run, _, _ = judged
    front = run.target().read_json("front.json")
    facts, verdict = _target_facts(run.target(), front), front["judged"]
    assert facts["front"].startswith(f"{verdict['area_percent']:.1f} % of the area that the best one known dominates")
    assert "known by 12 more archs beside it" in facts["front"]
