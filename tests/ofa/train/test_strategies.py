from collections import Counter
from functools import cache

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

import ofa
from ofa.cost.counted import macs_m
from ofa.train.strategies import AnyPhase, BatchDraw

PHASES = {
    "full": {},
    "sandwich": {"random": 3},
    "uniform": {"subnets": 4},
    "fair": {},
    "pareto": {"random": 2, "candidates": 4},
    "spread": {"subnets": 3},
}


def phase(strategy, **options):
    return TypeAdapter(AnyPhase).validate_python({"strategy": strategy, "epochs": 1} | options)


@pytest.fixture(scope="module")
def family():
    options = {"num_classes": 10, "in_channels": 1, "resolutions": [16, 20, 24], "width_mult": 0.5}
    return ofa.create_family("small_mobilenet_v3", **options)


size = cache(macs_m)


def draw(family, step=0, seed=0, losses=None):
    rng = np.random.default_rng((seed, step))
    return BatchDraw(family.space, step, rng, seed, size(family), losses or (lambda archs: [0.0] * len(archs)))


@pytest.mark.parametrize("name", PHASES)
def test_a_draw_decides_the_archs(family, name):
    made = phase(name, **PHASES[name])
    steps = [made.archs(draw(family, step)) for step in range(4)]
    assert steps == [made.archs(draw(family, step)) for step in range(4)]
    assert all(family.space.arch(arch) == arch for archs in steps for arch in archs)
    if name != "full":
        assert steps[0] != steps[1]
        assert steps[0] != made.archs(draw(family, seed=1))


def test_full_is_the_largest_alone(family):
    assert phase("full").archs(draw(family)) == [family.space.largest]


@pytest.mark.parametrize("name", ["sandwich", "pareto"])
def test_the_largest_comes_first_to_teach_the_others(family, name):
    archs = phase(name, **PHASES[name]).archs(draw(family))
    assert archs[:2] == [family.space.largest, family.space.smallest]
    assert len(set(archs)) == len(archs) == 2 + PHASES[name]["random"]


def test_uniform_archs_of_a_step_have_one_resolution(family):
    made = phase("uniform", subnets=4)
    steps = [made.archs(draw(family, step)) for step in range(200)]
    assert all(len(archs) == 4 and len({arch["resolution"] for arch in archs}) == 1 for archs in steps)
    for choice in ("resolution", "stage1.depth", "stage0.block0.kernel"):
        counts = Counter(arch[choice] for archs in steps for arch in archs)
        values = next(c.values for c in family.space.choices if c.name == choice)
        assert set(counts) == set(values)
        assert min(counts.values()) > 0.7 * 800 / len(values)


@given(start=st.integers(0, 10**6), steps=st.integers(1, 12))
def test_strict_fairness_draws_every_value_equally_often(family, start, steps):
    """Of choices that are always active; at no moment differs how often by more than one per permutation begun."""
    made, space = phase("fair"), family.space
    free = [choice for choice in space.choices if choice.needs is None]
    most = max(len(choice.values) for choice in space.choices)
    archs = [arch for step in range(start, start + steps) for arch in made.archs(draw(family, step))]
    assert len(archs) == steps * most
    for choice in free:
        counts = Counter(arch[choice.name] for arch in archs)
        times = [counts[value] for value in choice.values]
        if len(choice.values) == most:
            assert times == [steps] * most
        assert max(times) - min(times) <= 2  # a permutation is cut at either end at most


@pytest.mark.parametrize(("attend", "best"), [("best", min), ("worst", max)])
def test_pareto_takes_the_best_or_worst_of_archs_of_one_size(family, attend, best):
    tried = []

    def losses(archs):
        tried.append(archs)
        return [float(hash(arch) % 1000) for arch in archs]

    made = phase("pareto", random=3, candidates=5, attend=attend)
    archs = made.archs(draw(family, losses=losses))
    assert archs[2:] == [best(some, key=lambda arch: hash(arch) % 1000) for some in tried]
    cost = macs_m(family)
    spread = np.ptp(cost(family.space.sample(500, np.random.default_rng(0))))
    for some in tried:
        assert len(some) == 5
        assert np.ptp(cost(family.space.rows(some))) < 0.2 * spread


def test_spread_archs_are_one_of_each_part_of_the_range_of_sizes(family):
    made = phase("spread", subnets=4)
    space, counts = family.space, Counter()
    low, high = np.log(size(family)(space.rows([space.smallest, space.largest])))
    for step in range(40):
        archs = made.archs(draw(family, step))
        positions = (np.log(size(family)(space.rows(archs))) - low) / (high - low)
        assert np.allclose(positions, (np.arange(4)[::-1] + 0.5) / 4, atol=0.2)  # half a part, and the nearest arch
        counts.update(archs)
    assert counts[space.largest] < 10 > counts[space.smallest]
    assert len(counts) > 100


def test_archs_take_the_parts_of_the_batch_by_turns():
    made = phase("spread", subnets=6, parts=3)
    parts = [list(range(12))[made.images(i)] for i in range(6)]
    assert parts[:3] == parts[3:]
    assert sorted(image for part in parts[:3] for image in part) == list(range(12))
    assert {len(part) for part in parts} == {4}
    assert all(list(range(12))[phase(name, **PHASES[name]).images(1)] == list(range(12)) for name in PHASES)


def test_each_part_has_as_many_archs():
    with pytest.raises(ValidationError, match="parts = 2 does not divide subnets = 3; each needs as many archs"):
        phase("spread", subnets=3, parts=2)


def test_an_unknown_strategy_or_key():
    with pytest.raises(ValidationError, match="'full', 'sandwich', 'uniform', 'fair', 'pareto'"):
        phase("greedy")
    with pytest.raises(ValidationError, match="random"):
        phase("uniform", random=2)
