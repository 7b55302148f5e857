import re
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ofa.core.errors import InfeasibleError, SearchError, SpaceError
from ofa.search.algorithm import create, search
from ofa.search.nsga2 import breed
from ofa.search.pareto import best_first, hypervolume, non_dominated
from ofa.search.problem import Constraint, Objective
from ofa.space.choice import Choice
from ofa.space.search_space import SearchSpace

SEEDS = [0, 1, 2]


@pytest.fixture(scope="module")
def wide():
    """10 choices of 8 values: a billion archs, and a small population lacks most values of most choices."""
    return SearchSpace([Choice(f"c{i}", tuple(range(8))) for i in range(10)])


@pytest.fixture(scope="module")
def everything(space):
    return space.unique(np.array(list(np.ndindex(*(len(choice.values) for choice in space.choices)))))


def rugged(space, seed):
    """A function of archs to which pairs of choices contribute at random: its best archs are anywhere."""
    n_features = space.one_hot(space.rows([space.smallest])).shape[1]
    rng = np.random.default_rng((17, seed))
    weights, pairs = rng.normal(size=n_features), rng.normal(size=(n_features, n_features)) / 4

    def function(rows):
        features = space.one_hot(rows).astype(float)
        return 30 + features @ weights + ((features @ pairs) * features).sum(axis=1)

    return function


def separable(space):
    """A function of archs to which each choice contributes its own part; the best arch is known."""
    parts = np.random.default_rng(5).permuted(np.tile(np.arange(8.0), (len(space.choices), 1)), axis=1)
    return lambda rows: np.take_along_axis(parts.T, rows, axis=0).sum(axis=1), parts.argmax(axis=1)


def objectives_of(space):
    return [Objective("worth", rugged(space, 0), maximize=True), Objective("cost", rugged(space, 1))]


def watched(function, log):
    """The function, which also appends what it returns to a list."""

    def call(rows):
        values = function(rows)
        log.append((rows, values))
        return values

    return call


# Against an exhaustive search


@pytest.mark.parametrize("seed", SEEDS)
def test_the_front_of_a_small_space_is_the_front_of_all_archs(space, everything, seed):
    objectives = objectives_of(space)
    losses = np.stack([objective.function(everything) for objective in objectives], axis=1) * [-1, 1]
    true_front = {tuple(row) for row in everything[non_dominated(losses)].tolist()}
    assert true_front.isdisjoint(map(tuple, space.rows([space.smallest, space.largest]).tolist()))  # a search is needed
    budget = {"population": 40, "generations": 60, "mutate_probability": 0.2}
    front = search(space, objectives, [], np.random.default_rng(seed), **budget)
    random = space.unique(space.sample(front.n_evaluated, np.random.default_rng(seed)))
    assert len(true_front) == 20
    assert len(true_front & set(map(tuple, random.tolist()))) <= 6  # not enough of one
    assert len(true_front & set(map(tuple, front.rows.tolist()))) >= 17


@pytest.mark.parametrize("share", [0.002, 0.1, 0.5])
@pytest.mark.parametrize("seed", SEEDS)
def test_the_best_arch_under_two_limits_is_the_best_of_all_that_meet_both(space, everything, share, seed):
    worth, *costs = (rugged(space, i) for i in range(3))
    limits = [np.quantile(cost(everything), share**0.5) for cost in costs]
    feasible = np.logical_and(*(cost(everything) <= limit for cost, limit in zip(costs, limits, strict=True)))
    constraints = [Constraint(f"cost {i}", costs[i], limits[i]) for i in range(2)]
    for end in (space.smallest, space.largest):
        assert any(constraint.function(space.rows([end])) > constraint.limit for constraint in constraints)
    budget = {"population": 40, "generations": 40, "mutate_probability": 0.2}
    front = search(space, [Objective("worth", worth, True)], constraints, np.random.default_rng(seed), **budget)
    assert front.values.tolist() == [[worth(everything[feasible]).max()]]
    for constraint in constraints:
        assert (constraint.function(front.rows) <= constraint.limit).all()


# One operator at a time: the ends of these spaces are of no help


@pytest.mark.parametrize("seed", SEEDS)
def test_mutation_finds_values_that_no_arch_of_the_first_population_has(wide, seed):
    worth, best = separable(wide)
    log = []
    objective = Objective("worth", watched(worth, log), maximize=True)
    front = search(wide, [objective], [], np.random.default_rng(seed), population=8, generations=250)
    first = log[0][0]
    assert sum((first[:, column] == value).any() for column, value in enumerate(best)) <= 8  # of 10
    assert front.rows.tolist() == [best.tolist()]


@pytest.mark.parametrize("seed", SEEDS)
def test_crossover_alone_combines_the_values_of_the_first_population(wide, seed):
    worth, best = separable(wide)
    budget = {"population": 150, "generations": 40, "mutate_probability": 0.0}
    front = search(wide, [Objective("worth", worth, True)], [], np.random.default_rng(seed), **budget)
    assert front.rows.tolist() == [best.tolist()]


@pytest.mark.parametrize("seed", SEEDS)
def test_the_least_crowded_survive_so_that_a_small_population_covers_a_large_front(wide, seed):
    """Every arch is on the front, and random ones are in its middle."""

    def total(rows):
        return rows.sum(axis=1).astype(float)

    objectives = [Objective("worth", total, maximize=True), Objective("cost", total)]
    ends = wide.rows([wide.smallest, wide.largest])
    algorithm = create("nsga2", wide, objectives, rng=np.random.default_rng(seed), start=ends, population=24)
    for _ in range(200):
        rows = algorithm.ask(24)
        algorithm.tell(rows, algorithm.problem.evaluate(rows))
    totals = np.unique(total(algorithm.rows))
    assert (totals[0], totals[-1]) == (0, 70)
    assert np.diff(totals).max() <= 12  # 20 and more if survivors are drawn regardless of crowding


def test_the_best_of_each_objective_are_never_lost(wide):
    objectives, log = objectives_of(wide), ([], [])
    logged = [
        Objective(objective.name, watched(objective.function, values), objective.maximize)
        for objective, values in zip(objectives, log, strict=True)
    ]
    front = search(wide, logged, [], np.random.default_rng(0), population=6, generations=40)
    worth, cost = (np.concatenate([values for _, values in calls]) for calls in log)
    assert (front.values[:, 0].max(), front.values[:, 1].min()) == (worth.max(), cost.min())


# Survivors and children


@st.composite
def evaluated(draw):
    n = draw(st.integers(0, 16))
    losses = draw(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=n, max_size=n))
    violation = draw(st.lists(st.sampled_from([0, 0, 0, 1, 2, 3]), min_size=n, max_size=n))
    return losses, violation, draw(st.integers(1, 12))


@given(evaluated())
def test_survivors_are_the_first_of_the_order_of_a_plain_sort(case):
    """Up to the choice among equally crowded archs of the last front."""
    losses, violation, n = case

    def dominates(i, j):
        pairs = list(zip(losses[i], losses[j], strict=True))
        return all(x <= y for x, y in pairs) and any(x < y for x, y in pairs)

    rank, remaining = {}, [i for i in range(len(losses)) if violation[i] == 0]
    while remaining:
        front = [i for i in remaining if not any(dominates(j, i) for j in remaining)]
        rank |= dict.fromkeys(front, max(rank.values(), default=0) + 1)
        remaining = [i for i in remaining if i not in front]
    keys = [(violation[i], rank.get(i, 0)) for i in range(len(losses))]
    survivors = best_first(np.array(losses, float).reshape(-1, 2), np.array(violation, float), n).tolist()
    assert len(survivors) == len(set(survivors)) == min(n, len(losses))
    assert [keys[i] for i in survivors] == sorted(keys)[:n]


def test_of_the_last_front_the_least_crowded_survive():
    front = np.array([[0, 10], [1, 9], [2, 8], [6, 5], [10, 0]], float)
    losses, violation = np.concatenate([front + 1, front]), np.zeros(10)
    assert best_first(losses, violation, 5).tolist() == [5, 9, 8, 7, 6]  # the least crowded first
    assert set(best_first(losses, violation, 8)) == {5, 6, 7, 8, 9, 0, 4, 3}
    assert set(best_first(front, np.zeros(5), 4)) == {0, 2, 3, 4}


def test_children_are_half_crossovers_and_half_mutants_and_none_is_a_parent(wide):
    rng = np.random.default_rng(0)
    one, two = np.zeros((1, 10), int), np.array([[0] * 10, [7] * 10])
    mutants = breed(wide, one, rng, 11, 1.0)
    assert mutants.shape == (6, 10)  # all crossovers of an arch with itself are that arch
    assert (mutants != 0).all()
    crossed = breed(wide, two, rng, 401, 0.0)
    assert 70 <= len(crossed) <= 130  # half of 200: a pair of equal parents has no other child
    assert set(crossed.ravel().tolist()) == {0, 7}
    assert all(0 < row.sum() < 70 for row in crossed)
    assert np.array_equal(wide.unique(crossed), crossed)


def test_parents_are_the_better_ones_of_two_that_are_drawn(wide):
    parents = np.tile(np.arange(8)[:, None], 10)  # parent i has value i everywhere
    children = breed(wide, parents, np.random.default_rng(0), 4_000, 0.0)
    wins = (15 - 2 * np.arange(8)) / 64  # that it is drawn, and no better one with it
    with_another = wins * (1 - wins)
    assert np.abs(np.bincount(children.ravel()) / children.size - with_another / with_another.sum()).max() < 0.02
    assert all(len(set(row)) == 2 for row in children.tolist())


# What the search returns, counts and refuses


def test_a_front_is_sorted_by_its_first_objective_and_holds_each_arch_once(space):
    objectives = objectives_of(space)
    constraint = Constraint("third", rugged(space, 2), 31.0)
    front = search(space, objectives, [constraint], np.random.default_rng(0), population=40, generations=30)
    assert len(front.rows) > 5
    assert (np.diff(front.values[:, 0]) <= 0).all()  # the best first: the first objective is maximized
    assert np.array_equal(space.unique(front.rows), front.rows)
    assert front.values == pytest.approx(np.stack([one.function(front.rows) for one in objectives], axis=1))
    assert non_dominated(front.values * [-1, 1]).all()
    minimized = search(space, objectives[1:], [], np.random.default_rng(0), population=40, generations=10)
    assert minimized.values.tolist() == [[objectives[1].function(minimized.rows)[0]]]


@pytest.mark.parametrize("name", ["smallest", "largest", "start"])
def test_the_search_begins_with_the_ends_of_the_space_and_what_the_caller_gives(wide, name):
    start = np.full((1, 10), 3)
    only = start if name == "start" else wide.rows([getattr(wide, name)])
    limit = Constraint("only one", lambda rows: np.where((rows == only).all(axis=1), 1.0, 2.0), 1.5)
    budget = {"population": 4, "generations": 1, "start": start}
    front = search(wide, [Objective("worth", separable(wide)[0])], [limit], np.random.default_rng(0), **budget)
    assert np.array_equal(front.rows, only)


@pytest.mark.parametrize(("population", "generations"), [(1, 1), (2, 3), (5, 1), (30, 7), (200, 4)])
@pytest.mark.parametrize("limit", [1e9, -1.0])
def test_the_evaluated_archs_are_bounded_and_counted(wide, population, generations, limit):
    log = []
    objective = Objective("worth", watched(separable(wide)[0], log), maximize=True)
    problem = [wide, [objective], [Constraint("cost", separable(wide)[0], limit)], np.random.default_rng(0)]
    if limit < 0:
        with pytest.raises(InfeasibleError, match="no arch of") as error:
            search(*problem, population=population, generations=generations)
        n_evaluated = int(re.search(r"no arch of (\d+) meets", str(error.value))[1])
    else:
        n_evaluated = search(*problem, population=population, generations=generations).n_evaluated
    sizes = [len(rows) for rows, _ in log]
    assert n_evaluated == sum(sizes)
    assert len(sizes) == generations
    assert sizes[0] == population
    assert all(size <= population for size in sizes[1:])


def test_the_seed_alone_determines_the_front(space):
    first, same, other = (
        search(space, objectives_of(space), [], np.random.default_rng(seed), population=10, generations=3)
        for seed in (4, 4, 5)
    )
    assert np.array_equal(first.rows, same.rows)
    assert np.array_equal(first.values, same.values)
    assert first.rows.tolist() != other.rows.tolist()


def test_more_generations_find_a_larger_front(wide):
    areas = []
    for generations in (1, 4, 16, 64):
        rng = np.random.default_rng(0)
        front = search(wide, objectives_of(wide), [], rng, population=30, generations=generations)
        areas.append(hypervolume(front.values * [-1, 1], (-20.0, 40.0)))
    assert all(area > 1.05 * previous for previous, area in pairwise(areas))


def test_archs_with_equal_objectives_are_all_on_the_front(space):
    flat = Objective("flat", lambda rows: np.ones(len(rows)))
    front = search(space, [flat, flat], [], np.random.default_rng(0), population=20, generations=5)
    assert len(front.rows) == len(space.unique(front.rows)) > 50
    assert (front.values == 1).all()


def test_an_infeasible_limit_names_the_tightest_value_of_each_constraint(wide):
    """The constraints pull in opposite directions, so survivors of one lose the extremes of the other."""
    logs = {"small": [], "large": []}
    functions = [
        watched(lambda rows, s=sign: 1000 + s * rows.sum(axis=1), logs[name])
        for name, sign in zip(logs, (1, -1), strict=True)
    ]
    constraints = [Constraint("small", functions[0], 900.0), Constraint("large", functions[1], 500.0)]
    with pytest.raises(InfeasibleError, match="raise the limit") as error:
        search(wide, objectives_of(wide), constraints, np.random.default_rng(0), population=8, generations=15)
    for constraint in constraints:
        pattern = rf"{constraint.name} must be at most (\d+), the tightest seen is ([\d.]+)"
        limit, tightest = map(float, re.search(pattern, str(error.value)).groups())
        assert limit == constraint.limit
        assert tightest == pytest.approx(min(values.min() for _, values in logs[constraint.name]), rel=1e-3)


def test_a_limit_of_infinity_is_no_limit(space):
    limits = ([], [Constraint("cost", rugged(space, 1), np.inf)])
    fronts = [search(space, objectives_of(space), c, np.random.default_rng(0), population=10) for c in limits]
    assert np.array_equal(fronts[0].rows, fronts[1].rows)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"population": 0}, "population = 0 is not allowed; choose a whole number from 1 to 100000"),
        ({"population": 10**9}, "population = 1000000000 is not allowed; choose a whole number from 1 to 100000"),
        ({"generations": 0}, "generations = 0 is not allowed; choose a whole number from 1 to 100000"),
        ({"generations": float("inf")}, "generations = inf is not allowed"),
        ({"generations": float("nan")}, "generations = nan is not allowed"),
        (
            {"mutate_probability": -0.1},
            "mutate_probability = -0.1: input should be greater than or equal to 0",
        ),
        ({"mutate_probability": 1.1}, "mutate_probability = 1.1: input should be less than or equal to 1"),
        ({"mutate_probability": float("nan")}, "mutate_probability = nan: input should be a finite number"),
    ],
)
def test_settings_out_of_range_are_refused(space, settings, message):
    with pytest.raises(SearchError, match=message):
        search(space, objectives_of(space), [], np.random.default_rng(0), **settings)


def test_a_search_without_an_objective_is_refused(space):
    with pytest.raises(SearchError, match="a search needs at least one objective"):
        search(space, [], [], np.random.default_rng(0))


@pytest.mark.parametrize("kind", ["objective", "constraint"])
def test_nan_is_refused_with_the_name_of_what_returned_it(space, kind):
    def broken(rows):
        return np.where(rows[:, 0] == 1, np.nan, 1.0)

    objectives, constraints = objectives_of(space), [Constraint("cost", rugged(space, 2), 40.0)]
    if kind == "objective":
        objectives.append(Objective("energy_mj", broken))
    else:
        constraints.append(Constraint("energy_mj", broken, 2.0))
    with pytest.raises(SearchError, match=r"'energy_mj' is nan for \d+ archs"):
        search(space, objectives, constraints, np.random.default_rng(0), population=20, generations=5)


def test_archs_to_begin_with_must_belong_to_the_space(space):
    with pytest.raises(SpaceError, match=r"rows are int64 of shape \(1, 3\)"):
        search(space, objectives_of(space), [], np.random.default_rng(0), start=np.zeros((1, 3), int))
