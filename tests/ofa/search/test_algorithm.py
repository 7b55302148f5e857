import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ofa
import ofa.search
from ofa.core.errors import InfeasibleError, SearchError, SpaceError
from ofa.core.plugins import plugin_names
from ofa.search.algorithm import GROUP
from ofa.search.pareto import non_dominated
from ofa.search.problem import Constraint, Objective
from tests.families import FAMILIES
from tests.ofa.search.conftest import linear

NAMES = plugin_names(GROUP)
QUICK = {
    "bayesian": {
        "initial": 6,
        "pool": 3000,
        "predictor": "ridge",
        "predictor_settings": {"members": 2, "warp": "none"},
    },
    "local": {"initial": 3},
    "regularized_evolution": {"population": 6, "tournament": 3},
    "nsga2": {"population": 6},
    "reinforce": {"width": 8},
    "successive_halving": {"initial": 9, "rungs": 2},
}
"""Settings with which few archs show what an algorithm does."""
WORTH, COST = Objective("worth", maximize=True), Objective("cost")


def create(name, subject, objectives=(WORTH,), constraints=(), seed=0, **changes):
    rng = np.random.default_rng(seed)
    return ofa.search.create(name, subject, objectives, constraints, rng=rng, **QUICK.get(name, {}) | changes)


def values_of(search, rows):
    """Worth to maximize, then other costs to minimize, for each column of a search."""
    functions = [linear(search.space, i) for i in range(len(search.problem.columns))]
    return np.stack([function(rows) for function in functions], axis=1)


def run(search, n_asks, n=4):
    """Ask and tell; returns what was asked for."""
    asked = []
    for _ in range(n_asks):
        asked.append(search.ask(n))
        search.tell(asked[-1], values_of(search, asked[-1]))
    return asked


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("n_objectives", [1, 2, 3])
def test_the_seed_alone_determines_what_is_asked_for(name, n_objectives, space):
    objectives = [WORTH, COST, Objective("energy")][:n_objectives]
    first, same, other = (
        [rows.tolist() for rows in run(create(name, space, objectives, seed=seed), 5)] for seed in (4, 4, 5)
    )
    assert first == same
    assert (first != other) == (name != "grid")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("told", [True, False], ids=["told", "asked only"])
def test_a_search_that_was_stopped_and_resumed_asks_for_the_same(name, told, space):
    limit = Constraint("energy", limit=1.0)
    whole, stopped = (create(name, space, [WORTH, COST], [limit]) for _ in range(2))
    for search in (whole, stopped):
        run(search, 4)
        rows = search.ask(3)
        if told:
            search.tell(rows, values_of(search, rows))
    state = {key: array.copy() for key, array in stopped.state().items()}
    run(stopped, 2)  # what it does later does not change the state that it gave
    resumed = create(name, space, [WORTH, COST], [limit], seed=99)
    resumed.restore(state)
    if not told:
        for search in (whole, resumed):
            search.tell(rows, values_of(search, rows))
    assert [a.tolist() for a in run(whole, 5)] == [a.tolist() for a in run(resumed, 5)]
    assert whole.front().rows.tolist() == resumed.front().rows.tolist()
    assert whole.front().n_evaluated == resumed.front().n_evaluated


@pytest.mark.parametrize("name", NAMES)
def test_a_space_of_12_archs_is_exhausted(name, twelve):
    search, asked = create(name, twelve, population=20) if name == "nsga2" else create(name, twelve), []
    for _ in range(40):
        rows = search.ask(5)
        if not len(rows):
            break
        asked += map(tuple, rows.tolist())
        search.tell(rows, values_of(search, rows))
    assert len(rows) == 0
    assert len(set(asked)) == 12
    assert name == "successive_halving" or len(asked) == 12
    everything = np.array(list(twelve.enumerate()))
    of_all = values_of(search, everything)[:, 0]
    full = [one for one in map(tuple, everything.tolist()) if one in set(asked)]
    if name != "successive_halving":  # whose front is of the archs of last rungs
        assert search.front().values[0, 0] == of_all.max()
    assert len(full) == 12


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("nsga2", "successive_halving")])
def test_no_arch_is_asked_for_twice(name, space):
    search = create(name, space, [WORTH, COST])
    told = space.sample(10, np.random.default_rng(7))
    search.tell(told, values_of(search, told))
    asked = np.concatenate([*run(search, 12, n=5), search.ask(5), search.ask(5)])
    assert len(space.unique(np.concatenate([told, asked]))) == len(space.unique(told)) + len(asked)


@pytest.mark.parametrize("name", NAMES)
def test_it_begins_with_the_archs_that_it_is_given(name, space):
    start = space.sample(5, np.random.default_rng(1))
    search = create(name, space, start=np.concatenate([start, start[:2]]))
    asked = np.concatenate([search.ask(3), search.ask(3)])
    assert asked[:5].tolist() == start.tolist()


@pytest.mark.parametrize("name", NAMES)
def test_the_front_is_that_of_all_feasible_archs_that_were_told(name, space):
    limit = Constraint("energy", limit=0.5)
    search = create(name, space, [WORTH, COST], [limit])
    asked, told = [], space.sample(20, np.random.default_rng(7))
    search.tell(told, values_of(search, told))  # archs that nobody asked for
    for _ in range(12):
        rows = search.ask(5)
        search.tell(rows, values_of(search, rows))
        asked += [rows] if search.fidelity == 1 else []
    rows = space.unique(np.concatenate([told, *asked]))
    values = values_of(search, rows)
    feasible = values[:, 2] <= 0.5
    on_front = non_dominated(values[feasible, :2] * [-1, 1])
    front = search.front()
    assert set(map(tuple, front.rows.tolist())) == set(map(tuple, rows[feasible][on_front].tolist()))
    assert front.values == pytest.approx(values_of(search, front.rows)[:, :2])
    assert (np.diff(front.values[:, 0]) <= 0).all()


@pytest.mark.parametrize("name", NAMES)
def test_limits_that_no_arch_meets_end_with_the_tightest_values_seen(name, space):
    limits = [Constraint("energy", limit=-1e6), Constraint("size", limit=1e6)]
    search = create(name, space, [WORTH], limits)
    asked = np.concatenate(run(search, 8))
    tightest = values_of(search, asked)[:, 1].min()
    with pytest.raises(InfeasibleError, match=r"no arch of .* energy must be at most -1e") as error:
        search.front()
    seen = float(re.search(r"energy must be at most \S+, the tightest seen is ([-\d.]+)", str(error.value))[1])
    assert seen == pytest.approx(tightest, rel=1e-3)


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("random", "grid", "successive_halving")])
def test_it_finds_better_archs_than_as_many_random_ones(name, space):
    changes = {"lr": 0.03, "width": 32} if name == "reinforce" else {}
    best = {"random": [], name: []}
    for seed in range(3):
        for one, values in best.items():
            search = create(one, space, seed=seed, **changes if one == name else {})
            run(search, 25)
            values.append(search.front().values[0, 0])
    assert np.mean(best[name]) > np.mean(best["random"])


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("family", FAMILIES)
def test_the_archs_of_every_family_are_canonical(name, family):
    space = ofa.create_family(family, num_classes=10).space
    search = create(name, space, [WORTH, COST])
    for rows in run(search, 4, n=5):
        assert space.check_rows(rows).tolist() == space.canonical(rows).tolist()
        assert len(space.unique(rows)) == len(rows) <= 9


@settings(max_examples=25, deadline=None)
@given(st.sampled_from([n for n in NAMES if n != "bayesian"]), st.lists(st.integers(1, 7), max_size=8), st.data())
def test_any_way_to_ask_and_tell_keeps_the_books(name, sizes, data):
    space = ofa.SearchSpace([ofa.Choice("a", (1, 2, 3)), ofa.Choice("b", (1, 2, 3, 4)), ofa.Choice("c", (1, 2))])
    search, n_told = create(name, space, [WORTH, COST], [Constraint("energy", limit=0.0)]), 0
    for n in sizes:
        rows = search.ask(n)
        assert len(space.unique(rows)) == len(rows) <= max(n, 0)
        if data.draw(st.booleans()):
            search.tell(rows, values_of(search, rows))
            n_told += len(rows)
    assert search.n_told == n_told


@pytest.mark.parametrize("name", NAMES)
def test_what_is_told_again_counts_by_its_last_values(name, space):
    search, rng = create(name, space, [WORTH], [Constraint("energy", limit=0.0)]), np.random.default_rng(3)
    archs, last = space.unique(space.sample(6, rng)), {}
    for _ in range(12):
        rows = archs[rng.integers(len(archs), size=3)]
        values = np.stack([rng.integers(0, 9, 3), rng.integers(-2, 2, 3)], axis=1).astype(float)
        search.tell(rows, values)
        last |= {tuple(row): told for row, told in zip(rows.tolist(), values.tolist(), strict=True)}
        worths = {row: worth for row, (worth, energy) in last.items() if energy <= 0}
        if name in ("nsga2", "successive_halving"):  # which do not keep what is behind the front
            continue
        best = {row for row, worth in worths.items() if worth == max(worths.values())}
        if best:
            front = search.front()
            assert set(map(tuple, front.rows.tolist())) == best
            assert len(front.rows) == len(best)
    assert len(space.unique(search.front().rows)) == len(search.front().rows)


@pytest.mark.parametrize("name", NAMES)
def test_a_large_space_is_never_exhausted_even_if_one_arch_is_best_by_far(name):
    space = ofa.SearchSpace([ofa.Choice(f"c{i}", tuple(range(8))) for i in range(12)])
    changes = {"lr": 0.3, "width": 8} if name == "reinforce" else {"initial": 5} if name == "bayesian" else {}
    search = create(name, space, **changes)
    for _ in range(8 if name == "bayesian" else 60):
        rows = search.ask(5)
        assert len(rows) or name == "successive_halving"
        search.tell(rows, -rows.sum(axis=1, keepdims=True).astype(float))


@pytest.mark.parametrize("name", NAMES)
def test_a_search_without_constraints_says_that_it_has_no_front_yet(name, space):
    with pytest.raises(SearchError, match=f"{name} has no front of 0 archs yet; ask for more"):
        create(name, space).front()


@pytest.mark.parametrize("generator", [np.random.MT19937, np.random.Philox, np.random.SFC64])
def test_the_state_of_any_generator_is_kept(generator, space):
    one, other = (ofa.search.create("random", space, ["cost"], rng=np.random.Generator(generator(s))) for s in (1, 2))
    one.ask(3)
    other.restore(one.state())
    assert one.ask(5).tolist() == other.ask(5).tolist()


# Wrong input


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("nsga3", {}, r"unknown search algorithm 'nsga3'; did you mean nsga2\?"),
        ("nsga2", {"populations": 3}, r"'nsga2': populations: unknown key; did you mean population\?"),
        ("grid", {"choices": ""}, "'grid': choices = '': string should have at least 1 character"),
        ("random", {"n": 1}, "'random': n: unknown key; there are none"),
        ("reinforce", {"policy": "gru"}, "'reinforce': policy = 'gru': input should be 'lstm' or 'transformer'"),
        ("bayesian", {"acquisition": "ucb"}, "'bayesian': acquisition = 'ucb'"),
        ("bayesian", {"predictor": "gpp"}, r"'bayesian': unknown predictor 'gpp'; did you mean gp\?"),
        ("bayesian", {"predictor_settings": {"stepps": 3}}, r"'bayesian': .*stepps: unknown key; did you mean steps"),
        ("bayesian", {"predictor": "summary"}, "'bayesian': predictor 'summary'.*features"),
        ("grid", {"choices": "kernel*"}, "'grid': choices: no choice matches 'kernel.'"),
        ("local", {"initial": 0}, "'local': initial = 0"),
        ("successive_halving", {"reduction": 1}, "'successive_halving': reduction = 1"),
    ],
)
def test_unknown_names_and_settings_are_refused(name, settings, message, space):
    with pytest.raises(SearchError, match=message):
        ofa.search.create(name, space, ["cost"], rng=np.random.default_rng(0), **settings)


def test_what_is_asked_and_told_is_checked(space):
    search = create("random", space, [WORTH, COST], [Constraint("energy", limit=1.0)])
    for name in NAMES:
        with pytest.raises(SearchError, match=r"ask\(0\) asks for no arch"):
            create(name, space).ask(0)
    rows = search.ask(2)
    with pytest.raises(SearchError, match=r"values have shape \(2, 2\); tell \[2, 3\], that is worth, cost, energy"):
        search.tell(rows, np.zeros((2, 2)))
    with pytest.raises(SearchError, match="'cost' is nan for 1 archs"):
        search.tell(rows, np.array([[0, np.nan, 0], [0, 0, 0.0]]))
    with pytest.raises(SearchError, match="'worth' is inf for 1 archs"):
        search.tell(rows, np.array([[np.inf, 0, 0], [0, 0, 0.0]]))
    with pytest.raises(SpaceError, match="int64"):
        search.tell(rows.astype(float), np.zeros((2, 3)))
    assert search.n_told == 0
    search.tell(rows, np.array([[0, 0, np.inf], [0, 0, 0.0]]))  # a limit may be exceeded by any amount
    assert search.front().rows.tolist() == rows[1:].tolist()


def test_an_objective_given_by_name_is_minimized(space):
    search = ofa.search.create("random", space, ["cost"], rng=np.random.default_rng(0))
    rows = search.ask(3)
    search.tell(rows, np.array([[2.0], [1.0], [3.0]]))
    assert search.front().rows.tolist() == rows[1:2].tolist()


def test_a_search_over_functions_needs_them(space):
    with pytest.raises(SearchError, match=r"'worth' has no function; give one, or use ofa\.search\.create"):
        ofa.search(space, [WORTH], [], np.random.default_rng(0))


@pytest.mark.parametrize("name", NAMES)
def test_search_runs_every_algorithm_over_functions(name, space):
    worth = Objective("worth", linear(space), maximize=True)
    settings = {key: value for key, value in QUICK.get(name, {}).items() if key != "population"}
    budget = {"population": 10, "generations": 4}
    front = ofa.search(space, [worth], [], np.random.default_rng(0), algorithm=name, **budget, **settings)
    assert front.values.shape == (1, 1)
    assert front.n_evaluated <= 40
