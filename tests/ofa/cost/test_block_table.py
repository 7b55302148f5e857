import numpy as np
import pytest
import torch

from ofa.core.errors import SpaceError
from ofa.cost import block_table
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
    """Two optional layers with the same blocks, and three resolutions of which two give the same size."""
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


def block_costs(family, rows):
    """The cost of each block of each arch, from the arch itself; None in empty slots."""
    costs = []
    for row in rows:
        resolution = int(family.space.decode(row)["resolution"])
        blocks = [(block, slot.size(resolution)) for slot, block in family.blocks(row)]
        costs.append([None if block is None else made_up_cost(block, size) for block, size in blocks])
    return costs


def reduced(family, rows, reduce):
    return [reduce(cost for cost in costs if cost is not None) for costs in block_costs(family, rows)]


def all_rows(family):
    rows = np.array(list(np.ndindex(*(len(choice.values) for choice in family.space.choices))))
    return family.space.unique(rows)


def test_the_cost_is_the_sum_over_the_blocks_of_each_arch(family):
    rows = all_rows(family)
    sums = reduced(family, rows, sum)
    assert BlockTable(family, made_up_cost)(rows) == pytest.approx(sums, rel=1e-12)
    assert len(set(sums)) == family.space.size == 15


def test_the_cost_may_be_the_maximum_over_the_blocks(family):
    rows, peaks = all_rows(family), reduced(family, all_rows(family), max)
    assert BlockTable(family, made_up_cost, reduce=np.max)(rows) == pytest.approx(peaks, rel=1e-12)
    assert len(set(peaks)) > 2


def test_costs_of_a_large_family_do_not_depend_on_what_was_asked_before(tiny):
    rows = tiny.space.sample(200, np.random.default_rng(0))
    cost = BlockTable(tiny, made_up_cost)
    for part in (rows[:50], rows, rows[::-1], rows[3:4]):  # entries are computed when first needed
        assert cost(part) == pytest.approx(reduced(tiny, part, sum), rel=1e-12)


@pytest.mark.parametrize("max_entries", [0, 5, 1000])
def test_slots_that_read_too_many_choices_for_a_table_cost_the_same(family, monkeypatch, max_entries):
    monkeypatch.setattr(block_table, "_MAX_ENTRIES", max_entries)  # none, some or all slots have one
    cost, rows = BlockTable(family, made_up_cost), all_rows(family)
    assert cost(rows) == pytest.approx(reduced(family, rows, sum), rel=1e-12)
    _, present = cost.slot_costs(rows, cost.codes(rows))
    assert present.tolist() == [[cost is not None for cost in costs] for costs in block_costs(family, rows)]


def test_what_is_known_is_not_looked_up_again_and_slots_without_a_table_have_no_codes(family, monkeypatch):
    monkeypatch.setattr(block_table, "_MAX_ENTRIES", 5)
    cost, rows, looked_up = BlockTable(family, made_up_cost), all_rows(family), []
    assert cost.codes(rows).tolist() == np.zeros((len(rows), 4)).tolist()  # the other slots have a single block
    look_up = cost._look_up
    monkeypatch.setattr(cost, "_look_up", lambda slot, *indices: looked_up.append(slot) or look_up(slot, *indices))
    cost(rows)
    assert [looked_up.count(slot) for slot in range(4)] == [3, len(rows), len(rows), 3]
    cost(rows)
    assert [looked_up.count(slot) for slot in range(4)] == [3, 2 * len(rows), 2 * len(rows), 3]


def test_a_family_from_a_builder_may_have_more_archs_than_any_table():
    choices = [Choice(f"layer{i}.width", (1, 2)) for i in range(70)]
    family = Family.from_builder(SearchSpace(choices), lambda arch: torch.nn.Linear(int(sum(arch.values())), 2))
    rows = family.space.sample(5, np.random.default_rng(0))
    widths = [sum(family.space.decode(row).values()) for row in rows]
    cost = BlockTable(family, lambda block, size: float(block.build().in_features + size))
    assert cost(rows).tolist() == [width + 224 for width in widths]


def test_the_costs_of_slots_tell_empty_ones_from_free_ones(family):
    rows = all_rows(family)
    cost = BlockTable(family, made_up_cost)
    for _ in range(2):
        costs, present = cost.slot_costs(rows, cost.codes(rows))
        expected = block_costs(family, rows)
        assert present.tolist() == [[cost is not None for cost in costs] for costs in expected]
        assert costs == pytest.approx(np.array([[cost or 0.0 for cost in costs] for costs in expected]), rel=1e-12)
    free = BlockTable(family, lambda block, size: 0.0)
    assert np.array_equal(free.slot_costs(rows, free.codes(rows))[1], present)


def test_many_archs_cost_the_same_as_a_few_at_a_time(tiny, monkeypatch):
    rows = tiny.space.sample(50, np.random.default_rng(0))
    at_once = BlockTable(tiny, made_up_cost)(rows)
    monkeypatch.setattr(block_table, "_CHUNK", 7)
    assert np.array_equal(BlockTable(tiny, made_up_cost)(rows), at_once)


def test_codes_tell_the_blocks_of_a_slot_apart_and_nothing_else(tiny):
    rows = tiny.space.sample(300, np.random.default_rng(0))
    codes = BlockTable(tiny, made_up_cost).codes(rows)
    blocks = [[repr(block) for _, block in tiny.blocks(row)] for row in rows]
    for slot in range(codes.shape[1]):
        pairs = {(code, one[slot]) for code, one in zip(codes[:, slot].tolist(), blocks, strict=True)}
        assert len(pairs) == len({code for code, _ in pairs})
        assert codes[:, slot].min() >= 0
    read = [len(set(map(tuple, rows[:, list(columns)].tolist()))) for columns in tiny.columns]
    assert [len(set(codes[:, slot].tolist())) for slot in range(codes.shape[1])] == read


def test_each_distinct_block_is_costed_once_even_if_it_is_free(family):
    for price in (1.0, 0.0):
        asked = []
        cost = BlockTable(family, lambda block, size, asked=asked, price=price: asked.append((block, size)) or price)
        for _ in range(2):
            cost(all_rows(family))
        assert len(asked) == len(set(asked))
        assert set(asked) == set(distinct_blocks(family))


def test_distinct_blocks_are_those_of_all_archs(family):
    blocks = {
        (block, slot.size(int(family.space.decode(row)["resolution"])))
        for row in all_rows(family)
        for slot, block in family.blocks(row)
        if block is not None
    }
    found = list(distinct_blocks(family))
    assert set(found) == blocks
    assert len(found) == len(blocks) == 3 + 2 * 3 + 3  # a and b share theirs


def test_no_archs_no_costs(tiny):
    for reduce in (np.sum, np.max):
        assert BlockTable(tiny, made_up_cost, reduce=reduce)(tiny.space.rows([])).shape == (0,)


def test_rows_of_another_space_are_refused(tiny):
    cost, rows = BlockTable(tiny, made_up_cost), tiny.space.rows([tiny.space.largest])
    outside = rows.copy()
    outside[0, 0] = 1  # there is one resolution
    for wrong in (rows[:, :-1], rows[0], outside, -1 - rows, rows.astype(float)):
        with pytest.raises(SpaceError):
            cost(wrong)
