"""What sets each algorithm apart."""

import numpy as np
import pytest

import ofa
import ofa.search
from ofa.predict.warp import Warp
from ofa.search.bayesian import _Surrogate
from ofa.search.pareto import hypervolume
from ofa.search.problem import Constraint, Objective
from tests.ofa.search.conftest import linear

WORTH = Objective("worth", maximize=True)


def create(name, space, objectives=(WORTH,), seed=0, **settings):
    return ofa.search.create(name, space, objectives, rng=np.random.default_rng(seed), **settings)


def test_grid_search_is_in_order_over_the_chosen_choices(space):
    search = create("grid", space, choices="*.kernel")
    asked = np.concatenate([search.ask(10), search.ask(100)])
    assert len(asked) == 27
    assert asked.tolist() == sorted(asked.tolist())
    assert all(space.decode(row)["resolution"] == 32 for row in asked)
    assert len(search.ask(1)) == 0


def test_the_best_under_a_bound_on_parameters_is_found_by_a_grid(space):
    worth, cost = linear(space, 0), linear(space, 1)
    everything = np.array(list(space.enumerate()))
    limit = float(np.quantile(cost(everything), 0.3))
    front = ofa.search(
        space,
        [Objective("worth", worth, maximize=True)],
        [Constraint("params_m", cost, limit)],
        np.random.default_rng(0),
        algorithm="grid",
    )
    assert front.values[0, 0] == worth(everything[cost(everything) <= limit]).max()
    assert front.n_evaluated == len(everything)


def test_local_search_asks_for_neighbors_of_the_best_and_starts_anew_where_there_is_none_better(space):
    search, worth = create("local", space, initial=5), linear(space)
    first = search.ask(5)
    search.tell(first, worth(first)[:, None])
    best = first[worth(first).argmax()]
    around = search.ask(3)
    neighbors = set(map(tuple, space.neighbors(best).tolist()))
    assert set(map(tuple, around.tolist())) <= neighbors
    search.tell(around, np.full((3, 1), -1e6))  # none is better, so the others follow
    assert set(map(tuple, search.ask(3).tolist())) <= neighbors - set(map(tuple, around.tolist()))
    # A linear function has one optimum, so one climb finds it.
    search = create("local", space, initial=5)
    for _ in range(60):
        rows = search.ask(3)
        search.tell(rows, worth(rows)[:, None])
    everything = np.array(list(space.enumerate()))
    assert search.front().values[0, 0] == worth(everything).max()


def test_the_oldest_of_a_population_die(space):
    search = create("regularized_evolution", space, population=4, tournament=40)
    first = search.ask(4)
    search.tell(first, np.array([[9.0], [0], [0], [0]]))
    child = search.ask(1)
    assert tuple(child[0]) in set(map(tuple, space.neighbors(first[0]).tolist()))  # of the winner
    search.tell(child, np.array([[5.0]]))  # the best is the oldest: it is in the population no more
    grandchild = search.ask(1)
    assert tuple(grandchild[0]) in set(map(tuple, space.neighbors(child[0]).tolist()))


def test_each_rung_keeps_the_best_and_measures_them_on_more_images(space):
    search, worth = create("successive_halving", space, initial=9, reduction=3, rungs=3), linear(space)
    sizes, fidelities, previous = [], [], None
    for _ in range(3):
        rows = np.concatenate([search.ask(5), search.ask(5)]) if not sizes else search.ask(9)
        sizes.append(len(rows))
        fidelities.append(search.fidelity)
        assert len(search.ask(1)) == 0  # values of this rung are missing
        if previous is not None:
            assert set(map(tuple, rows.tolist())) <= set(map(tuple, previous.tolist()))
            assert worth(rows).min() >= np.sort(worth(previous))[-len(rows)]
        search.tell(rows, worth(rows)[:, None] - (3 - len(sizes)))
        previous = rows
    assert sizes == [9, 3, 1]
    assert fidelities == pytest.approx([1 / 9, 1 / 3, 1])
    assert search.front().values[0, 0] == worth(previous)[0]  # few images are no evidence
    assert len(search.ask(20)) == 9  # the next bracket


@pytest.mark.parametrize("size", [2, 8, 9])
def test_one_arch_at_least_reaches_the_last_rung_however_few_begin(size):
    space = ofa.SearchSpace([ofa.Choice("a", tuple(range(size)))])
    search = create("successive_halving", space, initial=8, reduction=3, rungs=3)
    for _ in range(4):
        rows = search.ask(8)
        search.tell(rows, rows.astype(float))
    assert len(search.front().rows) == 1


def test_archs_that_nobody_asked_for_are_not_of_the_rung(space):
    search, worth = create("successive_halving", space, initial=9, reduction=3, rungs=3), linear(space)
    rung = search.ask(9)
    others = np.array([row for row in space.enumerate() if row.tolist() not in rung.tolist()][:9])
    search.tell(others, worth(others)[:, None] + 100)
    assert len(search.ask(3)) == 0
    search.tell(rung, worth(rung)[:, None])
    assert set(map(tuple, search.ask(3).tolist())) <= set(map(tuple, rung.tolist()))


@pytest.mark.parametrize("acquisition", ["expected_improvement", "thompson"])
def test_no_arch_is_measured_that_is_known_to_break_a_limit_while_others_are_left(acquisition):
    """A constraint with a function is known without a measurement."""
    space = ofa.SearchSpace([ofa.Choice(f"c{i}", (0, 1, 2)) for i in range(4)])
    limit = Constraint("size", lambda rows: rows.sum(axis=1).astype(float), limit=4.0)
    goals = [Objective("worth", maximize=True), "cost"]
    search = create("bayesian", space, goals, constraints=[limit], initial=8, acquisition=acquisition)
    n_feasible = sum(row.sum() <= 4 for row in space.enumerate())
    for i in range(1, 7):
        rows = search.ask(6)
        sizes = rows.sum(axis=1)
        n_feasible -= np.count_nonzero(sizes <= 4)
        assert i <= 2 or (sizes <= 4).all() or n_feasible == 0
        search.tell(rows, np.stack([rows @ [3, 1, 2, 1], rows @ [1, 1, 1, 2], sizes], axis=1).astype(float))


@pytest.mark.parametrize("told", [[np.inf], [1.0, np.inf], [1.0, 2.0, 3.0, -np.inf, np.inf]])
def test_infinite_values_of_a_constraint_are_a_reason_to_look_elsewhere(space, told):
    search = create("bayesian", space, constraints=[Constraint("ms", limit=2.0)], initial=6)
    rows = search.ask(6)
    search.tell(rows, np.stack([linear(space)(rows), np.resize(told, 6)], axis=1))
    assert len(search.ask(4)) == 4


@pytest.mark.parametrize("policy", ["lstm", "transformer"])
def test_a_policy_learns_which_values_are_good_and_reads_the_choices_before(policy):
    """The second choice is good where it equals the first: no choice is good by itself."""
    space = ofa.SearchSpace([ofa.Choice("a", (0, 1, 2)), ofa.Choice("b", (0, 1, 2)), ofa.Choice("c", tuple(range(99)))])
    search = create("reinforce", space, policy=policy, width=16, lr=0.03, entropy=0.0)
    for _ in range(25):
        rows = search.ask(8)
        search.tell(rows, (rows[:, 0] == rows[:, 1])[:, None].astype(float))
    drawn = search._policy.sample(200, space.canonical, np.random.default_rng(1))
    assert (drawn[:, 0] == drawn[:, 1]).mean() > 0.6  # 1/3 by chance


def test_a_policy_has_nothing_to_say_of_inactive_choices(twelve):
    search = create("reinforce", twelve, width=8)
    shallow = twelve.rows([{"a": 1, "depth": 1}, {"a": 2, "depth": 1}])
    before = search._policy.state_dict()["values.weight"].clone()
    search.tell(shallow, np.array([[0.0], [1.0]]))
    after = search._policy.state_dict()["values.weight"]
    changed = set(np.flatnonzero((after != before).any(dim=1).numpy()).tolist())
    assert changed <= {0, 1, 3}  # values of a, and depth 1; of three values each


@pytest.mark.parametrize("acquisition", ["expected_improvement", "thompson"])
def test_bayesian_search_computes_what_has_a_function_and_predicts_the_rest(space, acquisition):
    asked_about = []

    def cost(rows):
        asked_about.append(len(rows))
        return linear(space, 1)(rows)

    worth = linear(space)
    objectives = [WORTH, Objective("cost", cost)]
    search = create("bayesian", space, objectives, initial=8, acquisition=acquisition, predictor="ridge")
    for _ in range(6):
        rows = search.ask(4)
        search.tell(rows, np.column_stack([worth(rows), linear(space, 1)(rows)]))
    assert max(asked_about) > 1000  # the whole space, without a measurement
    everything = np.array(list(space.enumerate()))
    rows_of = {"all": everything, "found": search.rows, "random": space.sample(search.n_told, np.random.default_rng(0))}
    area = {
        name: hypervolume(np.column_stack([-worth(rows), linear(space, 1)(rows)]), (5.0, 5.0))
        for name, rows in rows_of.items()
    }
    assert area["found"] - area["random"] > 0.3 * (area["all"] - area["random"])


def test_bayesian_search_keeps_a_limit_that_it_learns(space):
    worth, cost = linear(space), linear(space, 1)
    limit = Constraint("cost", limit=float(np.quantile(cost(space.sample(1000, np.random.default_rng(0))), 0.1)))
    rng = np.random.default_rng(0)
    search = ofa.search.create("bayesian", space, [WORTH], [limit], rng=rng, initial=15, predictor="ridge")
    feasible = []
    for _ in range(8):
        rows = search.ask(5)
        search.tell(rows, np.column_stack([worth(rows), cost(rows)]))
        feasible.append((cost(rows) <= limit.limit).mean())
    assert np.mean(feasible[-4:]) > 0.5 > 0.3 > np.mean(feasible[:3])


def test_of_archs_that_are_alike_one_is_measured_at_once():
    """Archs 0 and 1 are expected to gain most, but in the same draws; arch 2 gains in others, arch 3 in none."""

    class Draws:
        def draw(self, rows, n, rng):
            first, second = (5.0 * (rng.permutation(n) < n // 3) for _ in range(2))
            return np.stack([first, first, 0.9 * second, -np.ones(n)], axis=1)[:, rows[:, 0]]

    space = ofa.SearchSpace([ofa.Choice("a", (1, 2, 3, 4))])
    search = create("bayesian", space)
    search.tell(space.rows([{"a": 4}]), np.array([[0.0]]))
    surrogate = _Surrogate(search.problem.objectives[0], Warp.linear(np.array([0.0, 1.0])), Draws())
    rows = np.arange(4)[:, None]
    assert search._batch(surrogate, rows, np.ones(4), 1).tolist() == [0]
    assert search._batch(surrogate, rows, np.ones(4), 2).tolist() == [0, 2]
    assert sorted(search._batch(surrogate, rows, np.ones(4), 9).tolist()) == [0, 1, 2, 3]
    assert search._batch(surrogate, rows, np.array([0.0, 1, 1, 1]), 2).tolist() == [1, 2]


def test_a_pool_that_was_measured_is_followed_by_random_archs():
    space = ofa.SearchSpace([ofa.Choice(f"c{i}", tuple(range(8))) for i in range(12)])
    search = create("bayesian", space, initial=2, pool=20, predictor="ridge")  # one arch in each generation
    for _ in range(4):
        rows = search.ask(2)
        assert len(rows) > 0
        search.tell(rows, linear(space)(rows)[:, None])


def test_a_search_by_predictions_finds_archs_of_spaces_that_are_too_large_to_list():
    space = ofa.SearchSpace([ofa.Choice(f"c{i}", tuple(range(8))) for i in range(12)])
    worth = linear(space)
    search = create("bayesian", space, initial=40, pool=2000, predictor="ridge")
    for _ in range(6):
        rows = search.ask(10)
        search.tell(rows, worth(rows)[:, None])
    everything = worth(space.sample(100_000, np.random.default_rng(0)))
    assert search.front().values[0, 0] > everything.max()


def test_values_that_failed_do_not_rule_what_is_believed():
    """Normal scores of ranks: a training that failed is one rank below the next, whatever its accuracy is."""
    told = np.array([90.0, 91.0, 92.0, 10.0])
    assert np.diff(np.sort(Warp.ranks(told)(told))).max() < 1
