import re
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ofa.core.errors import InfeasibleError
from ofa.search.nsga2 import search
from ofa.search.pareto import hypervolume, non_dominated
from ofa.search.problem import Constraint, Objective
from ofa.space.choice import Choice
from ofa.space.search_space import SearchSpace

POINTS = st.lists(st.tuples(*[st.integers(0, 4)] * 2), max_size=30)


@pytest.fixture(scope="module")
def space():
    """Small enough to look at every arch: 2 * (4 + 4^2 + 4^3) archs."""
    choices = [Choice("resolution", (16, 32)), Choice("depth", (1, 2, 3))]
    for b in range(3):
        needs = ("depth", b + 1) if b else None
        choices += [Choice(f"{b}.kernel", (3, 5), needs), Choice(f"{b}.expand", (2, 4), needs)]
    return SearchSpace(choices)


def values_of(space, rows):
    """Accuracy and latency that grow with every choice; whole numbers, so that sums are exact and some are equal."""
    features = space.one_hot(rows).astype(np.int64)
    worth, cost = np.random.default_rng(3).integers(1, 40, size=(2, features.shape[1]))
    offsets = np.cumsum([0, *(len(choice.values) for choice in space.choices)])
    for weights in (worth, cost):
        for start, stop in pairwise(offsets):
            weights[start:stop] = np.cumsum(weights[start:stop])
    return (features @ worth).astype(float), (features @ cost).astype(float)


def accuracy(space):
    return Objective("accuracy", lambda rows: values_of(space, rows)[0], maximize=True)


def latency(space):
    return lambda rows: values_of(space, rows)[1]


def everything(space):
    rows = np.array(list(np.ndindex(*(len(choice.values) for choice in space.choices))))
    return space.unique(rows)


def plain_front(points):
    """Positions that no point beats, by a double loop."""

    def beats(a, b):
        return all(x <= y for x, y in zip(a, b, strict=True)) and any(x < y for x, y in zip(a, b, strict=True))

    return [not any(beats(other, point) for other in points) for point in points]


@given(POINTS)
def test_non_dominated_is_what_a_double_loop_gives(points):
    losses = np.array(points, dtype=float).reshape(-1, 2)
    assert non_dominated(losses).tolist() == plain_front(points)


@given(st.lists(st.tuples(*[st.integers(0, 3)] * 3), max_size=25))
def test_non_dominated_of_three_objectives(points):
    assert non_dominated(np.array(points, dtype=float).reshape(-1, 3)).tolist() == plain_front(points)


def test_non_dominated_of_more_points_than_a_block():
    losses = np.random.default_rng(0).integers(0, 60, size=(700, 2)).astype(float)
    assert non_dominated(losses).tolist() == plain_front(losses.tolist())


def test_infinite_losses_are_beaten_by_finite_ones():
    losses = np.array([[1.0, np.inf], [np.inf, np.inf], [1.0, 2.0], [np.inf, 0.0]])
    assert non_dominated(losses).tolist() == [False, False, True, True]


@given(POINTS, st.tuples(st.integers(-1, 6), st.integers(-1, 6)))
def test_hypervolume_counts_the_grid_cells_below_the_reference(points, reference):
    cells = [
        (x, y)
        for x in range(-1, reference[0])
        for y in range(-1, reference[1])
        if any(px <= x and py <= y for px, py in points)
    ]
    assert hypervolume(np.array(points, dtype=float).reshape(-1, 2), reference) == len(cells)


def test_hypervolume_of_known_points():
    losses = np.array([[0.5, 2.0], [1.0, 1.0], [9.0, -9.0], [1.5, 1.5]])
    assert hypervolume(losses, (2.0, 3.0)) == pytest.approx(1.5 * 1.0 + 1.0 * 1.0)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_front_of_a_small_space_is_the_true_one(space, seed):
    rows = everything(space)
    assert len(rows) == space.size == 168
    true = np.stack([-values_of(space, rows)[0], values_of(space, rows)[1]], axis=1)
    wanted = true[plain_front(true.tolist())]
    objectives = [accuracy(space), Objective("latency", latency(space))]
    front = search(space, objectives, [], np.random.default_rng(seed), population=100, generations=40)
    assert np.array_equal(np.unique(front.values * [-1, 1], axis=0), np.unique(wanted, axis=0))
    assert len(np.unique(wanted, axis=0)) > 5
    assert np.array_equal(np.stack(values_of(space, front.rows), axis=1), front.values)


def test_a_constrained_front_is_the_true_one(space):
    rows = everything(space)
    limit = float(np.median(latency(space)(rows)))
    inside = rows[latency(space)(rows) <= limit]
    front = search(
        space,
        [accuracy(space)],
        [Constraint("latency", latency(space), limit)],
        np.random.default_rng(0),
        population=60,
        generations=30,
    )
    assert np.unique(front.values).tolist() == [values_of(space, inside)[0].max()]
    assert (latency(space)(front.rows) <= limit).all()


@pytest.mark.parametrize("share", [0.02, 0.3, 1.0])
def test_constraints_are_kept(space, share):
    limits = [np.quantile(values, share) for values in values_of(space, everything(space))]
    constraints = [
        Constraint("accuracy", lambda rows: values_of(space, rows)[0], limits[0]),
        Constraint("latency", latency(space), limits[1]),
    ]
    objectives = [accuracy(space), Objective("latency", latency(space))]
    front = search(space, objectives, constraints, np.random.default_rng(0), population=40, generations=10)
    for constraint in constraints:
        assert (constraint.function(front.rows) <= constraint.limit).all()
    assert plain_front((front.values * [-1, 1]).tolist()) == [True] * len(front.rows)
    assert np.array_equal(space.unique(front.rows), front.rows)
    assert (np.diff(front.values[:, 0]) <= 0).all()  # the first objective is made large: the best come first


def test_a_limit_that_only_the_smallest_arch_meets(space):
    limit = float(latency(space)(space.rows([space.smallest]))[0])
    constraint = Constraint("latency", latency(space), limit)
    front = search(space, [accuracy(space)], [constraint], np.random.default_rng(0), population=20, generations=3)
    assert [space.decode(row) for row in front.rows] == [space.smallest]


def test_an_infeasible_limit_says_what_is_possible(space):
    tightest = latency(space)(everything(space)).min()
    constraint = Constraint("latency_ms", latency(space), tightest - 0.01)
    with pytest.raises(InfeasibleError, match="raise the limit") as caught:
        search(space, [accuracy(space)], [constraint], np.random.default_rng(0), population=20, generations=4)
    said = re.search(r"latency_ms at most (\S+) was asked, the tightest seen is (\S+);", str(caught.value))
    assert float(said[1]) == pytest.approx(tightest - 0.01, rel=1e-3)
    assert float(said[2]) == pytest.approx(tightest, rel=1e-3)


def test_the_tightest_value_seen_of_each_constraint_is_told(space):
    """Two that pull in opposite directions, so that survivors of one lose the extremes of the other."""
    seen = {"small": [], "large": []}

    def watched(name, sign):
        def function(rows):
            values = 1000 + sign * latency(space)(rows)
            seen[name].extend(values.tolist())
            return values

        return function

    constraints = [Constraint("small", watched("small", 1), 900.0), Constraint("large", watched("large", -1), 500.0)]
    with pytest.raises(InfeasibleError) as caught:
        search(space, [accuracy(space)], constraints, np.random.default_rng(0), population=8, generations=15)
    for name, values in seen.items():
        said = re.search(rf"{name} at most \S+ was asked, the tightest seen is ([\d.]+)", str(caught.value))
        assert float(said[1]) == pytest.approx(min(values), rel=1e-3)


@pytest.mark.parametrize(("population", "generations"), [(1, 1), (2, 3), (5, 1), (30, 7), (200, 4)])
@pytest.mark.parametrize("limit", [1e9, -1.0])
def test_the_archs_looked_at_are_bounded_and_counted(space, population, generations, limit):
    looked_at = []

    def counted(rows):
        looked_at.append(len(rows))
        return values_of(space, rows)[0]

    objective, constraint = Objective("accuracy", counted, maximize=True), Constraint("latency", latency(space), limit)
    run = [space, [objective], [constraint], np.random.default_rng(0), population, generations]
    if limit < 0:
        with pytest.raises(InfeasibleError, match="no arch of") as caught:
            search(*run)
        said = int(re.search(r"no arch of (\d+) meets", str(caught.value))[1])
    else:
        said = search(*run).n_evaluated
    assert said == sum(looked_at) <= population * (generations + 1) + 2


def test_the_same_seed_gives_the_same_front(space):
    objectives = [accuracy(space), Objective("latency", latency(space))]
    first, same, other = (
        search(space, objectives, [], np.random.default_rng(seed), population=10, generations=3) for seed in (4, 4, 5)
    )
    assert np.array_equal(first.rows, same.rows)
    assert np.array_equal(first.values, same.values)
    assert first.rows.tolist() != other.rows.tolist()


def test_more_generations_do_not_lose_what_was_found(space):
    objectives = [accuracy(space), Objective("latency", latency(space))]
    areas = []
    for generations in (1, 4, 16):
        front = search(space, objectives, [], np.random.default_rng(0), population=30, generations=generations)
        areas.append(hypervolume(front.values * [-1, 1], (0.0, 100.0)))
    assert areas == sorted(areas)
    assert areas[0] < areas[-1]


def test_all_equal_objectives(space):
    flat = Objective("flat", lambda rows: np.ones(len(rows)))
    front = search(space, [flat, flat], [], np.random.default_rng(0), population=20, generations=5)
    assert len(front.rows) == 20
    assert (front.values == 1).all()


def test_a_large_space(tiny):
    """Every choice adds to both, so the ends of the front are the ends of the space."""

    def total(rows):
        return tiny.space.active(rows).sum(axis=1) + rows.sum(axis=1).astype(float)

    def root(rows):
        return np.sqrt(total(rows))

    objectives = [Objective("worth", root, maximize=True), Objective("cost", total)]
    front = search(tiny.space, objectives, [], np.random.default_rng(0), population=50, generations=5)
    assert tiny.space.decode(front.rows[0]) == tiny.space.largest
    assert tiny.space.decode(front.rows[-1]) == tiny.space.smallest


def test_no_objective_is_a_mistake_of_the_caller(space):
    with pytest.raises(ValueError, match="at least one objective"):
        search(space, [], [], np.random.default_rng(0))


def test_the_search_begins_with_what_it_is_given(space):
    """A limit that one arch alone meets, in a search too short to find it."""
    rows = everything(space)
    costs = latency(space)(rows)
    fastest = rows[costs.argmin()][None]
    limit = Constraint("latency", lambda asked: np.where((asked == fastest).all(axis=1), 1.0, 2.0), 1.5)
    front = search(space, [accuracy(space)], [limit], np.random.default_rng(0), 4, 1, start=fastest)
    assert np.array_equal(front.rows, fastest)
