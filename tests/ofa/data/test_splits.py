import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ofa.core.errors import DataError
from ofa.data.splits import split_by_class


@given(st.lists(st.integers(2, 30), min_size=1, max_size=5), st.floats(0.1, 40), st.randoms())
def test_both_parts_hold_every_class_in_the_same_shares_and_every_image_once(sizes, percent, random):
    labels = [label for label, size in enumerate(sizes) for _ in range(size)]
    random.shuffle(labels)
    labels = np.array(labels)
    first, second = split_by_class(labels, percent)
    assert sorted([*first, *second]) == list(range(len(labels)))
    assert (np.diff(first) > 0).all()
    assert (np.diff(second) > 0).all()
    for label, size in enumerate(sizes):
        assert np.count_nonzero(labels[second] == label) == max(1, round(size * percent / 100))


def test_the_second_part_is_drawn_at_random_and_the_same_each_time():
    labels = np.zeros(1000, dtype=int)
    _, second = split_by_class(labels, 20)
    assert np.array_equal(second, split_by_class(labels, 20)[1])
    assert 400 < second.mean() < 600
    assert len(set(np.diff(second).tolist())) > 5


@pytest.mark.parametrize(("names", "name"), [((), "1"), (("cat", "emu"), "emu")])
@pytest.mark.parametrize("labels", [[0, 0, 0, 1], [0, 0, 0, 2, 2]])
def test_a_class_of_fewer_than_two_images_is_refused(labels, names, name):
    with pytest.raises(DataError, match=f"class '?{name}'? has too few images to split; every class needs at least 3"):
        split_by_class(np.array(labels), 20, names)
