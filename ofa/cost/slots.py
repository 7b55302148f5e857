"""A cost that is a sum over slots: per slot a small table indexed by the choices it reads, then gather and sum."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from ofa.block import Block
from ofa.families import Family
from ofa.space import Rows

BlockCost = Callable[[Block, int], float]
"""`cost(block, size)`: of one block at an input of `size` by `size` pixels."""


class SlotSum:
    """The sum of a block cost over the slots of many archs.

    Tables are filled when an entry is first asked for, each distinct block and size once.
    """

    def __init__(self, family: Family, block_cost: BlockCost) -> None:
        self._family, self._block_cost = family, block_cost
        self._costs: dict[tuple[Block, int], float] = {}
        n_values = [len(choice.values) for choice in family.space.choices]
        resolution = family.space.column("resolution")
        self._columns = [(resolution, *columns) for columns in family.columns]
        self._shapes = [tuple(n_values[column] for column in columns) for columns in self._columns]
        self._tables = [np.full(int(np.prod(shape)), np.nan) for shape in self._shapes]

    def __call__(self, rows: Rows) -> NDArray[np.float64]:
        """The cost `[n]` of rows `[n, n_choices]`."""
        total = np.zeros(len(rows))
        for index, (columns, shape, table) in enumerate(zip(self._columns, self._shapes, self._tables, strict=True)):
            entries = np.ravel_multi_index(tuple(rows[:, column] for column in columns), shape)
            values = table[entries]
            if np.isnan(values).any():
                for entry in np.unique(entries[np.isnan(values)]):
                    table[entry] = self._entry(index, int(entry), shape)
                values = table[entries]
            total += values
        return total

    def _entry(self, index: int, entry: int, shape: tuple[int, ...]) -> float:
        resolution, *indices = (int(i) for i in np.unravel_index(entry, shape))
        block = self._family.slot_block(index, tuple(indices))
        if block is None:
            return 0.0
        key = (block, self._family.slots[index].size(self._family.resolutions[resolution]))
        if key not in self._costs:
            self._costs[key] = self._block_cost(*key)
        return self._costs[key]


def distinct_blocks(family: Family) -> Iterator[tuple[Block, int]]:
    """Every block and input size that some arch of the family contains, each once: the rows of a latency table."""
    seen: set[tuple[Block, int]] = set()
    n_values = [len(choice.values) for choice in family.space.choices]
    for index, (slot, columns) in enumerate(zip(family.slots, family.columns, strict=True)):
        for indices in np.ndindex(*(n_values[column] for column in columns)):
            block = family.slot_block(index, indices)
            for resolution in family.resolutions:
                key = (block, slot.size(resolution))
                if block is not None and key not in seen:
                    seen.add((block, key[1]))
                    yield block, key[1]
