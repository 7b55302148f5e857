"""A cost that is a sum over slots: per slot a small table indexed by the choices it reads, then gather and sum."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from ofa.space.arch import Rows
from ofa.supernet.block import Block
from ofa.supernet.family import Family

BlockCost = Callable[[Block, int], float]
"""`cost(block, size)`: of one block at an input of `size` by `size` pixels."""


_DENSE = 100_000
"""Entries of a slot at most for which an array is made."""


_AT_ONCE = 4096


class BlockTable:
    """The sum of a block cost over the slots of many archs.

    The entries of all slots lie in one array; that of a slot that reads too many choices, as the only one of a family
    that is not made of blocks does, in a dictionary. They are made when they are first asked for, each distinct block
    and size once.
    """

    def __init__(self, family: Family, block_cost: BlockCost) -> None:
        self._family, self._block_cost = family, block_cost
        self._costs: dict[tuple[Block, int], float] = {}
        n_values = [len(choice.values) for choice in family.space.choices]
        self._resolution = family.space.column("resolution")
        self._shapes = [tuple(n_values[column] for column in columns) for columns in family.columns]
        n_resolutions, n_codes = n_values[self._resolution], [math.prod(shape) for shape in self._shapes]
        self._large = [index for index, n in enumerate(n_codes) if n * n_resolutions > _DENSE]
        self._n_codes = np.array([1 if index in self._large else n for index, n in enumerate(n_codes)])
        self._starts = np.cumsum([0, *self._n_codes[:-1]]) * n_resolutions
        self._values = np.full(self._n_codes.sum() * n_resolutions, np.inf)
        for index in self._large:
            self._values[self._starts[index] :][:n_resolutions] = 0.0  # known, and not used
        self._others: dict[tuple[int, bytes], float] = {}

    def __call__(self, rows: Rows) -> NDArray[np.float64]:
        """The cost `[n]` of rows `[n, n_choices]`."""
        return np.concatenate([np.zeros(0), *(np.nansum(self.parts(some), axis=1) for some in in_parts(rows))])

    def parts(self, rows: Rows, codes: Rows | None = None) -> NDArray[np.float64]:
        """The cost of each slot's block `[n, n_slots]`, NaN where an arch has none there.

        Args:
            rows: `[n, n_choices]`.
            codes: of the rows, where they are known, from any sum over the same family.
        """
        codes = self.codes(rows) if codes is None else codes
        resolution = rows[:, self._resolution]
        entries = codes + (self._starts[:, None] + self._n_codes[:, None] * resolution).T
        found: NDArray[np.float64] = self._values.take(entries)
        unknown = found == np.inf
        for index in np.flatnonzero(unknown.any(axis=0)).tolist():
            for entry in np.unique(entries[unknown[:, index], index]).tolist():
                place, code = divmod(entry - int(self._starts[index]), int(self._n_codes[index]))
                self._values[entry] = self._entry(index, place, *map(int, np.unravel_index(code, self._shapes[index])))
            found[:, index] = self._values.take(entries[:, index])
        for index in self._large:
            read = rows[:, [self._resolution, *self._family.columns[index]]]
            found[:, index] = [self._looked_up(index, row) for row in read]
        return found

    def codes(self, rows: Rows) -> Rows:
        """Of each slot, a number that tells its blocks apart `[n, n_slots]`; all 0 where it reads too many choices."""
        columns = np.ascontiguousarray(rows.T)
        codes = np.zeros((len(self._shapes), len(rows)), dtype=np.int64)
        for index, shape in enumerate(self._shapes):
            if index not in self._large:
                for column, n_values in zip(self._family.columns[index], shape, strict=True):
                    codes[index] = codes[index] * n_values + columns[column]
        return codes.T

    def _looked_up(self, index: int, row: Rows) -> float:
        key = (index, row.tobytes())
        if key not in self._others:
            self._others[key] = self._entry(index, *row.tolist())
        return self._others[key]

    def _entry(self, index: int, resolution: int, *indices: int) -> float:
        block = self._family.slot_block(index, indices)
        if block is None:
            return math.nan
        key = (block, self._family.slots[index].size(self._family.resolutions[resolution]))
        if key not in self._costs:
            self._costs[key] = self._block_cost(*key)
        return self._costs[key]


def in_parts(rows: Rows) -> Iterator[Rows]:
    """Some at a time, as much as the processor's caches hold."""
    for start in range(0, len(rows), _AT_ONCE):
        yield rows[start : start + _AT_ONCE]


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
