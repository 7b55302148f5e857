from collections import Counter

import numpy as np
import pytest

import ofa
from ofa.predict.encoding import Encoding
from ofa.space.choice import Choice
from ofa.space.search_space import SearchSpace
from tests.families import FAMILIES


@pytest.fixture
def staged():
    """Two stages of up to two layers; the kernels of second layers can be inactive."""
    choices = [Choice("resolution", (16, 32))]
    for stage in ("stage1", "stage2"):
        choices.append(Choice(f"{stage}.depth", (1, 2)))
        choices.append(Choice(f"{stage}.block1.kernel", (3, 5)))
        choices.append(Choice(f"{stage}.block2.kernel", (3, 5), needs=(f"{stage}.depth", 2)))
    return SearchSpace(choices)


def test_states_tell_inactive_choices_from_first_values(staged):
    encoding = Encoding(staged)
    assert encoding.n_states == (2, 2, 2, 3, 2, 2, 3)
    small, large = staged.rows([staged.smallest, staged.largest])
    assert encoding.states(np.stack([small, large])).tolist() == [[0, 0, 0, 0, 0, 0, 0], [1, 1, 1, 2, 1, 1, 2]]
    deep = staged.rows([dict(staged.smallest) | {"stage1.depth": 2, "stage1.block2.kernel": 3}])
    assert encoding.states(deep).tolist() == [[0, 1, 0, 1, 0, 0, 0]]


@pytest.mark.parametrize("name", FAMILIES)
def test_archs_differ_in_their_states_exactly_as_in_their_rows(name):
    space = ofa.create_family(name, num_classes=10).space
    rows = space.unique(space.sample(300, np.random.default_rng(0)))
    one_hot = Encoding(space).one_hot(rows)
    assert len(np.unique(one_hot, axis=0)) == len(rows)
    assert (one_hot.sum(axis=1) == len(space.choices)).all()


def test_kinds_are_choices_of_the_same_thing(staged):
    assert Encoding(staged).kinds == (0, 1, 2, 3, 1, 2, 3)


def test_numbers_count_the_states_of_a_kind_in_each_stage_and_in_all():
    names = ["stage1.layer1", "stage1.layer2", "stage2.layer1", "stage2.layer2", "stage2.layer3"]
    space = SearchSpace([Choice(name, (0, 1, 2)) for name in names])
    rows = space.sample(20, np.random.default_rng(1))
    numbers = Encoding(space, {"cost": lambda rows: np.exp(rows[:, 0].astype(float))}).numbers(rows)
    for row, found in zip(rows.tolist(), numbers, strict=True):
        expected = [Counter(part)[state] for part in (row, row[:2], row[2:]) for state in range(3)]
        assert sorted(found[:-1]) == sorted(expected)
        assert found[-1] == pytest.approx(row[0])
    assert numbers.shape == (20, 10)


def test_a_space_without_repeated_kinds_has_no_numbers():
    space = SearchSpace([Choice("resolution", (16, 32)), Choice("width", (1, 2))])
    assert Encoding(space).numbers(space.sample(4, np.random.default_rng(0))).shape == (4, 0)
