import numpy as np
import pytest
import torch

from ofa.cost.block_table import BlockTable, distinct_blocks
from ofa.space.choice import Choice
from ofa.space.search_space import SearchSpace
from ofa.supernet.family import Family
from ofa.supernet.slot import Slot
from supernets.blocks.convolutions import ConvNorm, Head


def made_up_cost(block, size):
    """A number that differs for every block and size."""
    return sum(ord(c) * (i % 7 + 1) for i, c in enumerate(repr(block))) + size / 128


@pytest.fixture(scope="module")
def family():
    """Two optional layers that share their blocks, and a size that two resolutions have in common."""
    choices = [Choice("resolution", (16, 17, 33)), Choice("depth", (0, 1, 2)), Choice("kernel", (3, 5), ("depth", 1))]

    def layer(number):
        return lambda depth, kernel: ConvNorm(8, 8, kernel) if depth >= number else None

    slots = (
        Slot("stem", lambda: ConvNorm(3, 8, stride=2)),
        Slot("a", layer(1), ("depth", "kernel"), reduction=2),
        Slot("b", layer(2), ("depth", "kernel"), reduction=2),
        Slot("head", lambda: Head(8, 16, 16, 4), reduction=2),
    )
    return Family("made", SearchSpace(choices), slots)


def plain(family, rows):
    total = []
    for row in rows:
        resolution = int(family.space.decode(row)["resolution"])
        pairs = [(block, slot.size(resolution)) for slot, block in family.blocks(row) if block is not None]
        total.append(sum(made_up_cost(block, size) for block, size in pairs))
    return total


def all_rows(family):
    rows = np.array(list(np.ndindex(*(len(choice.values) for choice in family.space.choices))))
    return family.space.unique(rows)


def test_the_sum_is_that_over_the_blocks_of_each_arch(family):
    rows = all_rows(family)
    assert BlockTable(family, made_up_cost)(rows) == pytest.approx(plain(family, rows), rel=1e-12)
    assert len(set(plain(family, rows))) == family.space.size == 15


def test_the_sum_over_a_large_family(tiny):
    rows = tiny.space.sample(200, np.random.default_rng(0))
    cost = BlockTable(tiny, made_up_cost)
    for part in (rows[:50], rows, rows[::-1]):  # tables are filled bit by bit
        assert cost(part) == pytest.approx(plain(tiny, part), rel=1e-12)


def test_codes_tell_the_blocks_of_a_slot_apart(tiny):
    rows = tiny.space.sample(300, np.random.default_rng(0))
    codes = BlockTable(tiny, made_up_cost).codes(rows)
    blocks = [[repr(block) for _, block in tiny.blocks(row)] for row in rows]
    for slot in range(codes.shape[1]):
        pairs = {(code, one[slot]) for code, one in zip(codes[:, slot].tolist(), blocks, strict=True)}
        assert len(pairs) == len({code for code, _ in pairs})
        assert codes[:, slot].min() >= 0


def test_each_distinct_block_is_asked_for_once(family):
    asked = []
    cost = BlockTable(family, lambda block, size: asked.append((block, size)) or 1.0)
    for _ in range(2):
        cost(all_rows(family))
    assert len(asked) == len(set(asked))
    assert set(asked) == set(distinct_blocks(family))


def test_distinct_blocks_are_those_of_all_archs(family):
    plain_blocks = {
        (block, slot.size(int(family.space.decode(row)["resolution"])))
        for row in all_rows(family)
        for slot, block in family.blocks(row)
        if block is not None
    }
    found = list(distinct_blocks(family))
    assert set(found) == plain_blocks
    assert len(found) == len(plain_blocks) == 3 + 2 * 3 + 3  # a and b share theirs


def test_no_archs_no_costs(tiny):
    assert BlockTable(tiny, made_up_cost)(tiny.space.rows([])).shape == (0,)


def test_a_free_block_is_not_asked_for_again(family):
    asked = []
    cost = BlockTable(family, lambda block, size: asked.append(block) or 0.0)
    for _ in range(2):
        assert not cost(all_rows(family)).any()
    assert len(asked) == len(list(distinct_blocks(family)))


def test_costing_draws_nothing(tiny):
    before = torch.get_rng_state()
    list(distinct_blocks(tiny))
    assert torch.equal(torch.get_rng_state(), before)
