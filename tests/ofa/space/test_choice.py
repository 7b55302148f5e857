import pytest

from ofa.core.errors import SpaceError
from ofa.space.choice import Choice


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ((), "give finite numbers"),
        ((1, float("nan")), "give finite numbers"),
        ((1, float("inf")), "give finite numbers"),
        ((True, 2), "give finite numbers"),
        (("3", "5"), "give finite numbers"),
        ((5, 3), "in ascending order, each once"),
        ((3, 3), "in ascending order, each once"),
        ((1, 1.0), "in ascending order, each once"),
        ((1, 3, 2), "in ascending order, each once"),
    ],
)
def test_values_that_are_not_ascending_finite_numbers_are_refused(values, message):
    with pytest.raises(SpaceError, match=f"choice 'k' .*{message}"):
        Choice("k", values)


def test_a_depth_states_what_the_choices_of_each_block_need():
    depth = Choice("depth", (2, 3, 5))
    assert [depth.needs_for(b) for b in range(5)] == [None, None, ("depth", 3), ("depth", 4), ("depth", 5)]
