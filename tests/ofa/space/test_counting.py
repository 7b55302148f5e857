from itertools import product

from hypothesis import given
from hypothesis import strategies as st

from ofa.space.counting import count_assignments


@st.composite
def dependencies(draw):
    """Up to 5 columns, each with up to 2 earlier parents, and the number of indices for each sum of theirs."""
    n = draw(st.integers(0, 5))
    parents = [draw(st.sets(st.integers(0, column - 1), max_size=2)) if column else set() for column in range(n)]
    return parents, [draw(st.lists(st.integers(0, 3), min_size=7, max_size=7)) for _ in range(n)]


@given(dependencies())
def test_the_count_is_the_number_of_consistent_assignments(case):
    parents, n_indices = case

    def indices(column, fixed):
        assert set(fixed) >= parents[column]
        return range(n_indices[column][sum(fixed[parent] for parent in parents[column])])

    listed = [
        assignment
        for assignment in product(range(3), repeat=len(parents))
        if all(index in indices(column, dict(enumerate(assignment))) for column, index in enumerate(assignment))
    ]
    assert count_assignments(parents, indices) == len(listed)


def test_a_long_chain_is_counted_without_listing_its_assignments():
    calls = []

    def indices(column, _):
        calls.append(column)
        return range(2)

    parents = [set(), *({column} for column in range(49))]
    assert count_assignments(parents, indices) == 2**50
    assert len(calls) < 200
