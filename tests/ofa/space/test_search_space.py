import fnmatch
import math
from fractions import Fraction
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ofa.core.errors import SpaceError
from ofa.space.choice import Choice
from ofa.space.search_space import SearchSpace

NUMBERS = st.sampled_from([-2, 0, 0.5, 1, 1.5, 2, 3, 7])


@st.composite
def spaces(draw):
    """Spaces of up to 5 choices that may need an earlier one, sometimes a value it does not have, or follow one."""
    choices = [Choice("c0", tuple(sorted(draw(st.sets(NUMBERS, min_size=2, max_size=3)))))]
    for i in range(1, draw(st.integers(1, 5))):
        values = tuple(sorted(draw(st.sets(NUMBERS, min_size=1, max_size=3))))
        parents = st.tuples(st.sampled_from([choice.name for choice in choices]), NUMBERS)
        free = st.sampled_from([choice.name for choice in choices if choice.follows is None])
        choices.append(Choice(f"c{i}", values, draw(st.none() | parents), draw(st.none() | free)))
    return SearchSpace(choices)


def plain_arch(space, indices):
    """The values of a row by the definitions of `needs` and `follows`, one choice after the other."""
    values, by_name = {}, {choice.name: choice for choice in space.choices}
    for choice, index in zip(space.choices, indices, strict=True):
        if choice.needs is None or values.get(choice.needs[0], -math.inf) >= choice.needs[1]:
            if choice.follows is not None:
                followed = by_name[choice.follows].values
                followed_index = followed.index(values.get(choice.follows, followed[-1]))
                index = follower_index(followed_index, len(followed), len(choice.values))
            values[choice.name] = choice.values[index]
    return values


def follower_index(index, n, m):
    """The index of the one of `m` values that is as far along as value `index` of `n`."""
    return math.floor(Fraction(index * (m - 1), n - 1) + Fraction(1, 2)) if n > 1 else m - 1


def is_free(space):
    return np.array([choice.follows is None for choice in space.choices])


def all_rows(space):
    return np.array(list(product(*(range(len(choice.values)) for choice in space.choices))))


def is_canonical(space, rows):
    return all(np.array_equal(space.row(space.decode(row)), row) for row in rows)


@pytest.fixture
def space():
    """Two stages of 1 to 3 blocks with a kernel each; the second stage needs the larger width."""
    choices = [Choice("resolution", (16, 24, 32)), Choice("width", (0.5, 1.0))]
    for stage, needs in (("a", None), ("b", ("width", 1.0))):
        choices.append(Choice(f"{stage}.depth", (1, 2, 3), needs))
        choices += [Choice(f"{stage}.{i}.kernel", (3, 5), (f"{stage}.depth", i + 1)) for i in range(3)]
    return SearchSpace(choices)


@given(spaces())
def test_the_size_is_the_number_of_different_archs(space):
    plain = [plain_arch(space, indices) for indices in all_rows(space)]
    assert [dict(space.decode(row)) for row in all_rows(space)] == plain
    assert space.size == len({frozenset(values.items()) for values in plain}) == len(space.unique(all_rows(space)))


@given(spaces())
def test_equal_archs_have_equal_rows_and_hashes(space):
    rows = space.canonical(all_rows(space))
    archs = [space.decode(row) for row in all_rows(space)]
    by_arch = {}
    for arch, row in zip(archs, rows, strict=True):
        assert np.array_equal(space.row(arch), row)
        assert by_arch.setdefault(arch, row.tolist()) == row.tolist()
    assert len({tuple(row) for row in rows.tolist()}) == len(by_arch)
    assert np.array_equal(space.rows(archs), rows)


@given(spaces())
def test_one_hot_features_equal_those_of_a_loop(space):
    rows = all_rows(space)
    plain = []
    for row in rows:
        values = plain_arch(space, row)
        plain.append([values.get(choice.name) == value for choice in space.choices for value in choice.values])
    features = space.one_hot(rows)
    assert features.dtype == np.float32
    assert np.array_equal(features, np.array(plain, dtype=np.float32))


@given(spaces(), st.integers(0, 2**32), st.floats(0, 1))
def test_operators_return_canonical_rows_that_depend_on_the_seed_alone(space, seed, probability):
    def run():
        rng = np.random.default_rng(seed)
        mothers, fathers = space.sample(6, rng), space.sample(6, rng)
        return mothers, space.mutate(mothers, rng, probability), space.crossover(mothers, fathers, rng), fathers

    first_run = run()
    for rows, again in zip(first_run, run(), strict=True):
        assert rows.shape == (6, len(space.choices))
        assert is_canonical(space, rows)
        assert np.array_equal(rows, again)
    mothers, _, crossed, fathers = first_run
    active = space.active(crossed)
    assert ((crossed == mothers) | (crossed == fathers))[active & is_free(space)].all()


@given(spaces(), st.integers(0, 2**32))
def test_mutation_with_probability_0_changes_nothing_and_with_1_every_free_choice(space, seed):
    rng = np.random.default_rng(seed)
    rows = space.sample(5, rng)
    assert np.array_equal(space.mutate(rows, rng, 0.0), rows)
    moved = space.mutate(rows, rng, 1.0)
    several = np.array([len(choice.values) > 1 for choice in space.choices])
    assert (moved != rows)[space.active(moved) & several & is_free(space)].all()


def test_sampling_is_uniform_over_values_and_mutation_over_the_other_values(space):
    rng = np.random.default_rng(0)
    rows = space.sample(6000, rng)
    for column in range(3):  # always active
        counts = np.bincount(rows[:, column])
        assert np.abs(counts / len(rows) - 1 / len(counts)).max() < 0.03
    moved = space.mutate(np.zeros((6000, 10), dtype=np.int64), rng, 0.3)
    assert np.abs(np.bincount(moved[:, 0]) / 6000 - [0.7, 0.15, 0.15]).max() < 0.03


@given(spaces(), st.data())
def test_unique_keeps_the_order_of_first_appearance(space, data):
    rows = all_rows(space)
    rows = rows[data.draw(st.lists(st.integers(0, len(rows) - 1), max_size=20))]
    plain = []
    for row in space.canonical(rows).tolist():
        if row not in plain:
            plain.append(row)
    assert space.unique(rows).tolist() == plain


@given(spaces(), st.data())
def test_keep_largest_returns_exactly_the_archs_with_the_largest_values(whole, data):
    patterns = st.sampled_from([*whole.names, "c*", "*[12]", "?0"]).filter(lambda p: fnmatch.filter(whole.names, p))
    counts = data.draw(st.dictionaries(patterns, st.integers(1, 4), max_size=3))
    n_kept = {name: next((n for p, n in counts.items() if fnmatch.fnmatchcase(name, p)), 1) for name in whole.names}
    free = [choice for choice in whole.choices if choice.follows is None]
    allowed = {choice.name: choice.values[-n_kept[choice.name] :] for choice in free}

    def is_kept(arch):
        return all(arch[name] in values for name, values in allowed.items() if name in arch)

    expected = {arch for arch in map(whole.decode, all_rows(whole)) if is_kept(arch)}
    if len(expected) == 1:
        with pytest.raises(SpaceError, match="a single arch"):
            whole.keep_largest(counts)
        return
    narrowed = whole.keep_largest(counts)
    assert {c.name: c.values for c in narrowed.choices if c.follows is None} == allowed
    assert {narrowed.decode(row) for row in all_rows(narrowed)} == expected
    assert (narrowed.size, narrowed.largest) == (len(expected), whole.largest)
    for row in narrowed.sample(20, np.random.default_rng(0)):
        arch = narrowed.decode(row)
        assert whole.arch(dict(arch)) == narrowed.arch(dict(arch)) == arch
        assert is_kept(arch)


def test_keep_largest_can_make_conditional_choices_unconditional(space):
    narrowed = space.keep_largest({"resolution": 2, "a.*": 2})
    values = {choice.name: choice.values for choice in narrowed.choices}
    assert (values["resolution"], values["width"], values["a.depth"]) == ((24, 32), (1.0,), (2, 3))
    assert narrowed.active(all_rows(narrowed))[:, [0, 1, 2, 3, 4, 6, 7, 8, 9]].all()  # all but the kernel of a's third
    assert narrowed.size == 2 * (4 + 8)
    assert narrowed.keep_largest({"a.depth": 2}).size == 2


def test_keep_largest_keeps_the_values_that_followed_choices_lead_to():
    """Depths 1 to 4 lead to widths 1, 2, 2, 3. Spread anew over widths 2 and 3, depths 2 to 4 would lead to 2, 3, 3."""
    whole = SearchSpace([Choice("depth", (1, 2, 3, 4)), Choice("width", (1, 2, 3), follows="depth")])
    narrowed = whole.keep_largest({"depth": 3, "width": 1})
    assert [dict(narrowed.decode(row)) for row in narrowed.unique(all_rows(narrowed))] == [
        {"depth": 2, "width": 2},
        {"depth": 3, "width": 2},
        {"depth": 4, "width": 3},
    ]
    assert narrowed.keep_largest({"depth": 2}).smallest == {"depth": 3, "width": 2}
    with pytest.raises(SpaceError, match="a single arch"):
        whole.keep_largest({"width": 2})


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ({"a.*": 2, "*.expand": 2}, r"no choice matches '\*\.expand'; choose from resolution, .* \(10 in all\)"),
        ({"A.*": 2}, r"no choice matches 'A\.\*'; choose from resolution, .* \(10 in all\)"),
        ({"*kernal": 2}, r"no choice matches '\*kernal'; did you mean "),
        ({"*": 2, "a.depth": 0}, r"'a\.depth' cannot keep 0 values; keep 1 or more of a\.depth"),
        ({"*.depth": -1}, r"'\*\.depth' cannot keep -1 values; keep 1 or more of a\.depth, b\.depth"),
        ({}, "a single arch"),
        ({"*": 1}, "a single arch"),
    ],
)
def test_wrong_counts_are_refused(space, counts, message):
    with pytest.raises(SpaceError, match=message):
        space.keep_largest(counts)


@pytest.mark.parametrize(
    ("n", "m", "reached"),
    [
        (3, 3, [0, 1, 2]),
        (3, 2, [0, 1, 1]),
        (4, 2, [0, 0, 1, 1]),
        (2, 4, [0, 3]),
        (3, 4, [0, 2, 3]),
        (5, 3, [0, 1, 1, 2, 2]),
        (2, 1, [0, 0]),
    ],
)
def test_a_choice_that_follows_is_as_far_along_its_values(n, m, reached):
    space = SearchSpace([Choice("a", tuple(range(n))), Choice("b", tuple(range(m)), follows="a")])
    assert space.size == n
    assert [space.decode(row)["b"] for row in space.canonical(all_rows(space))[::m]] == reached


@pytest.fixture
def coupled():
    """Choices that follow one with a single value, one that is always active, and one that may be inactive."""
    choices = [Choice("single", (1,)), Choice("depth", (1, 2, 3)), Choice("kernel", (3, 5), ("depth", 2), "depth")]
    choices += [Choice("width", (8, 16, 24), ("depth", 2)), Choice("last", (1, 2, 3), None, "width")]
    return SearchSpace([*choices, Choice("only", (1, 2), follows="single"), Choice("free", (0, 1), ("last", 3))])


def test_an_arch_need_not_list_choices_that_follow(coupled):
    assert coupled.smallest == {
        "single": 1,
        "depth": 1,
        "last": 3,
        "only": 2,
        "free": 0,
    }  # last follows width, which is inactive
    assert coupled.size == 2 + 2 * (1 + 1 + 2)
    arch = coupled.arch({"depth": 2, "width": 8})
    assert arch == {"single": 1, "depth": 2, "kernel": 5, "width": 8, "last": 1, "only": 2}
    assert coupled.arch(dict(arch)) == coupled.arch(dict(arch) | {"free": 1}) == arch
    assert coupled.arch({"depth": 1, "kernel": 5, "free": 1})["last"] == 3  # an inactive kernel may have any value
    row = coupled.row(arch)
    assert row.tolist() == [0, 1, 1, 0, 0, 1, 0]
    assert coupled.decode(row * 0 + [0, 1, 0, 0, 2, 0, 1]) == arch
    assert np.array_equal(coupled.one_hot(row[None]), coupled.one_hot(row[None] * 0 + [0, 1, 0, 0, 2, 0, 1]))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"depth": 2, "width": 8, "kernel": 3},
            "kernel = 3 is not allowed: it follows depth, which is 2, so it is 5; leave it out",
        ),
        (
            {"depth": 1, "last": 1, "free": 0},
            "last = 1 is not allowed: it follows width, which is inactive, so it is 3",
        ),
        ({"depth": 1, "only": 1, "free": 0}, "only = 1 is not allowed: it follows single, which is 1, so it is 2"),
        ({"depth": 2, "width": 8, "kernel": 4}, r"kernel = 4 is not allowed; choose from \(3, 5\)"),
        ({"kernel": 5, "free": 0}, r"choice 'depth' is missing \(1 in all\)"),
        ({"depth": 2, "width": 24}, r"choice 'free' is missing \(1 in all\)"),
    ],
)
def test_archs_that_contradict_what_a_choice_follows_are_refused(coupled, values, message):
    with pytest.raises(SpaceError, match=message):
        coupled.arch(values)


@given(spaces(), st.data())
def test_a_choice_that_follows_can_be_left_out_but_not_contradicted(space, data):
    row = data.draw(st.sampled_from(all_rows(space).tolist()))
    arch = space.decode(np.array(row))
    followers = [choice for choice in space.choices if choice.follows is not None and choice.name in arch]
    left = {name: value for name, value in arch.items() if name not in {choice.name for choice in followers}}
    assert space.arch(left) == arch
    for choice in followers:
        for value in set(choice.values) - {arch[choice.name]}:
            with pytest.raises(
                SpaceError, match=rf"{choice.name} = {value} is not allowed: it follows {choice.follows}, "
            ):
                space.arch(dict(arch) | {choice.name: value})


def test_the_size_of_a_space_counted_by_hand(space):
    stage = 2 + 4 + 8
    assert space.size == 3 * (stage + stage * stage)
    assert repr(space) == "SearchSpace(10 choices, 630 archs)"


def test_the_smallest_and_the_largest_arch_of_a_space(space):
    assert dict(space.smallest) == {"resolution": 16, "width": 0.5, "a.depth": 1, "a.0.kernel": 3}
    assert dict(space.largest) == {choice.name: choice.values[-1] for choice in space.choices}
    assert space.column("a.depth") == 2


def test_inactive_choices_do_not_change_an_arch(space):
    arch = space.arch({"resolution": 16, "width": 0.5, "a.depth": 1, "a.0.kernel": 5})
    same = space.arch(dict(space.largest) | dict(arch))
    assert same == arch
    assert hash(same) == hash(arch)
    assert np.array_equal(space.row(dict(space.largest) | dict(arch)), space.row(arch))
    assert "b.depth" not in same
    assert len(space.unique(space.rows([arch, same]))) == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"color": 1}, r"unknown choice 'color'; choose from resolution, width, .* \(10 in all\)"),
        ({"a.depht": 1}, r"unknown choice 'a\.depht'; did you mean a\.depth"),
        ({"a.0.kernel": None}, r"choice 'a\.0\.kernel' is missing \(1 in all\)"),
        ({"width": 0.75}, r"width = 0\.75 is not allowed; choose from \(0\.5, 1\.0\)"),
        ({"a.depth": 0}, r"a\.depth = 0 is not allowed; choose from \(1, 2, 3\)"),
        ({"a.depth": 2}, r"choice 'a\.1\.kernel' is missing"),
        ({"width": float("nan")}, "width = nan is not allowed"),
        ({"width": "wide"}, "width = 'wide' is not allowed"),
        ({"width": True}, "width = True is not allowed"),
        ({"b.2.kernel": 9}, r"b\.2\.kernel = 9 is not allowed"),
    ],
)
def test_wrong_archs_are_refused(space, change, message):
    values = {name: value for name, value in (dict(space.smallest) | change).items() if value is not None}
    for check in (space.arch, space.row):
        with pytest.raises(SpaceError, match=message):
            check(values)


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ([Choice("a", (1, 2)), Choice("a", (1, 2))], "choice 'a' is listed twice"),
        ([Choice("a", (1, 2), ("b", 1)), Choice("b", (1, 2))], "choice 'a' needs 'b', which must be listed before"),
        ([Choice("a", (1, 2), ("a", 1))], "choice 'a' needs 'a'"),
        (
            [Choice("a", (1, 2), follows="b"), Choice("b", (1, 2))],
            "choice 'a' follows 'b', which must be listed before",
        ),
        ([Choice("a", (1, 2), follows="a")], "choice 'a' follows 'a', which must be listed before"),
        (
            [Choice("a", (1, 2)), Choice("b", (1, 2), follows="a"), Choice("c", (1, 2), follows="b")],
            "choice 'c' follows 'b', which is not free; let it follow 'a' as well",
        ),
        ([Choice("a", (1,)), Choice("b", (4, 5), follows="a")], "a single arch"),
        ([Choice("a", (1,)), Choice("b", (4,))], "a single arch"),
        ([Choice("a", (1,)), Choice("b", (4, 5), ("a", 2))], "a single arch"),
        ([], "a single arch"),
    ],
)
def test_contradicting_choices_are_refused(choices, message):
    with pytest.raises(SpaceError, match=message):
        SearchSpace(choices)


def test_a_row_is_accepted_wherever_a_mapping_is(space):
    for arch in (space.smallest, space.largest, space.decode(space.sample(1, np.random.default_rng(0))[0])):
        row = space.row(dict(arch))
        assert row.tolist() == [
            choice.values.index(arch[choice.name]) if choice.name in arch else 0 for choice in space.choices
        ]
        assert np.array_equal(space.row(row), row)
        assert np.array_equal(space.row(row.tolist()), row)
    smallest = np.array([0, 0, 0, 0, 1, 1, 2, 1, 1, 1])  # all from the second kernel on are inactive
    assert np.array_equal(space.row(smallest), space.row(space.smallest))
    assert space.rows([smallest, space.largest]).tolist() == [
        space.row(smallest).tolist(),
        (space.row(space.largest)).tolist(),
    ]
    assert smallest.tolist() == [0, 0, 0, 0, 1, 1, 2, 1, 1, 1]  # the caller's row is left alone


def test_a_list_of_no_archs_is_a_matrix_of_no_rows(space):
    assert space.rows([]).shape == space.unique(space.rows([])).shape == (0, 10)
    assert space.one_hot(space.rows([])).shape == (0, 3 + 2 + 2 * (3 + 3 * 2))


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            np.zeros((1, 9), int),
            r"rows are int64 of shape \(1, 9\), but this space requires int64 of shape \[n, 10\]; ",
        ),
        (np.zeros((1, 11), int), r"rows are int64 of shape \(1, 11\)"),
        (np.zeros((1, 10)), r"rows are float64 of shape \(1, 10\)"),
        (np.zeros((1, 10), bool), r"rows are bool of shape \(1, 10\)"),
        (np.zeros((1, 10, 1), int), r"rows are int64 of shape \(1, 10, 1\)"),
        (np.eye(10, dtype=int)[1:2] * 2, r"rows have an index outside 0 to 1 for choice 'width'; create them with"),
        (np.eye(10, dtype=int)[:1] * 3, "rows have an index outside 0 to 2 for choice 'resolution'"),
        (-np.eye(10, dtype=int)[-1:], r"rows have an index outside 0 to 1 for choice 'b\.2\.kernel'"),
    ],
)
def test_malformed_rows_are_refused_by_everything_that_takes_rows(space, rows, message):
    rng = np.random.default_rng(0)
    for call in (
        space.check_rows,
        space.active,
        space.canonical,
        space.unique,
        space.one_hot,
        lambda rows: space.mutate(rows, rng),
        lambda rows: space.crossover(rows, space.sample(len(rows), rng), rng),
        lambda rows: space.crossover(space.sample(len(rows), rng), rows, rng),
        lambda rows: space.decode(rows[-1]),
        lambda rows: space.row(rows[-1]),
        lambda rows: space.rows(rows),
    ):
        with pytest.raises(SpaceError, match=message):
            call(rows)


def test_well_formed_rows_are_returned_as_they_are(space):
    rows = space.sample(50, np.random.default_rng(0))
    for well_formed in (rows, rows[::2], np.asfortranarray(rows), rows[:0]):
        assert space.check_rows(well_formed) is well_formed


def test_crossover_needs_as_many_fathers_as_mothers(space):
    rng = np.random.default_rng(0)
    with pytest.raises(SpaceError, match="3 mothers cannot cross with 1 fathers"):
        space.crossover(space.sample(3, rng), space.sample(1, rng), rng)


def test_an_unknown_choice_has_no_column(space):
    with pytest.raises(SpaceError, match=r"unknown choice 'depth'; did you mean b\.depth or a\.depth"):
        space.column("depth")


def test_a_space_of_many_nested_choices_is_counted_at_once():
    """Choice `i` needs the larger value of choice `i - 1`: 1 more arch for each, after 2 for the first."""
    choices = [Choice("c0", (0, 1)), *(Choice(f"c{i}", (0, 1), (f"c{i - 1}", 1)) for i in range(1, 60))]
    assert SearchSpace(choices).size == 61


# All archs, neighbors, and numbers that tell archs apart


@given(spaces(), st.data())
def test_every_arch_is_enumerated_once_in_ascending_order_after_any_arch(space, data):
    everything = np.array(list(space.enumerate()))
    assert everything.tolist() == sorted(space.unique(all_rows(space)).tolist())
    position = data.draw(st.integers(0, len(everything) - 1))
    rest = list(space.enumerate(after=everything[position]))
    assert np.array(rest).reshape(-1, len(space.choices)).tolist() == everything[position + 1 :].tolist()


def test_choices_that_are_not_enumerated_keep_their_largest_value(space):
    name = space.choices[0].name
    rows = np.array(list(space.enumerate(name)))
    assert [space.decode(row)[name] for row in rows] == list(space.choices[0].values)
    with pytest.raises(SpaceError, match="no choice matches 'nothing'"):
        list(space.enumerate("nothing"))


@given(spaces(), st.data())
def test_the_neighbors_of_an_arch_are_all_that_one_free_choice_leads_to(space, data):
    row = space.sample(1, np.random.default_rng(data.draw(st.integers(0, 99))))[0]
    expected = set()
    for column, choice in enumerate(space.choices):
        for index in range(len(choice.values)):
            moved = row.copy()
            moved[column] = index
            expected.add(tuple(space.canonical(moved[None])[0].tolist()))
    neighbors = space.neighbors(row)
    assert set(map(tuple, neighbors.tolist())) == expected - {tuple(row.tolist())}
    assert len(neighbors) == len(expected) - 1
    mutants = space.mutate_one(np.repeat(row[None], 200, axis=0), np.random.default_rng(0))
    assert set(map(tuple, mutants.tolist())) <= (expected - {tuple(row.tolist())} or expected)


def test_every_neighbor_is_drawn_by_mutating_one_choice(space):
    row = space.row(space.largest)
    mutants = space.mutate_one(np.repeat(row[None], 3000, axis=0), np.random.default_rng(0))
    assert np.array_equal(np.unique(mutants, axis=0), np.unique(space.neighbors(row), axis=0))


def test_keys_are_equal_for_equal_rows_only_whatever_the_size_of_the_space():
    large = SearchSpace([Choice(f"c{i}", tuple(range(9))) for i in range(50)])  # 9^50 needs three words
    rows = large.sample(500, np.random.default_rng(0))
    one_apart = rows.copy()
    one_apart[:, 49] = (one_apart[:, 49] + 1) % 9
    keys = large.keys(np.concatenate([rows, rows[::-1], one_apart]))
    assert keys.shape == (1500, 3)
    assert np.array_equal(keys[:500], keys[500:1000][::-1])
    assert len(np.unique(keys, axis=0)) == 1000
