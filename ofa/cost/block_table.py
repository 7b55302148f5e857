"""Costs that follow from the blocks of an arch: one table per slot, then a gather and a reduction for many archs."""

import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ofa.space.arch import Rows
from ofa.supernet.block import Block
from ofa.supernet.family import Family

BlockCost = Callable[[Block, int], float]
"""`cost(block, size)`: the cost of a block whose input is `size` by `size` pixels."""

_MAX_ENTRIES = 100_000  # of a slot's table
_CHUNK = 4096  # archs whose intermediate arrays fit into the processor's caches


class BlockTable:
    """A cost of archs that is the sum, or another reduction such as `np.max`, of a cost of their blocks.

    Entries are computed when first needed, once for each distinct block and size. They lie in one array, ordered by
    slot, resolution, and code of the block. A slot that reads too many choices for that, such as the only one of a
    family from a builder, is looked up arch by arch. The cost has a `name`, such as `macs_m`, and a `unit` in words.
    """

    def __init__(
        self, family: Family, cost: BlockCost, *, name: str = "", unit: str = "", reduce: Callable[..., Any] = np.sum
    ) -> None:
        self.name, self.unit = name, unit
        self._family, self._block_cost, self._reduce = family, cost, reduce
        self._block_costs: dict[tuple[Block, int], float] = {}
        n_values = [len(choice.values) for choice in family.space.choices]
        n_resolutions = len(family.resolutions)
        self._resolution = family.space.column("resolution")
        self._shapes = [tuple(n_values[column] for column in columns) for columns in family.columns]
        self._too_large = [i for i, s in enumerate(self._shapes) if math.prod(s) * n_resolutions > _MAX_ENTRIES]
        self._n_codes = np.array([0 if i in self._too_large else math.prod(s) for i, s in enumerate(self._shapes)])
        self._starts = n_resolutions * np.cumsum([0, *self._n_codes])
        self._cost = np.zeros(self._starts[-1] + 1)  # the last entry stands for slots without a table
        self._present, self._known = np.zeros((2, len(self._cost)), dtype=bool)
        self._known[-1] = True

    def __call__(self, rows: Rows) -> NDArray[np.float64]:
        """Return the cost `[n]` of rows `[n, n_choices]`.

        Raises:
            SpaceError: the rows are not of the family's search space.
        """
        self._family.space.check_rows(rows)
        costs = [self._reduce(self.slot_costs(chunk, self.codes(chunk))[0], axis=1) for chunk in chunks(rows)]
        return np.concatenate([np.zeros(0), *costs])

    def codes(self, rows: Rows) -> Rows:
        """Return codes that tell the blocks of each slot apart `[n, n_slots]`; all 0 in a slot without a table."""
        columns = np.ascontiguousarray(rows.T)
        codes = np.zeros((len(self._shapes), len(rows)), dtype=np.int64)
        for slot, shape in enumerate(self._shapes):
            if slot not in self._too_large:
                for column, n_values in zip(self._family.columns[slot], shape, strict=True):
                    codes[slot] = codes[slot] * n_values + columns[column]
        return codes.T

    def slot_costs(self, rows: Rows, codes: Rows) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """Return the cost of the block in each slot, 0 in empty slots, and whether there is one, both `[n, n_slots]`.

        The rows `[n, n_choices]` are not checked; their codes may be those of any table of the same family.
        """
        resolutions = rows[:, self._resolution]
        entries = codes + (self._starts[:-1, None] + self._n_codes[:, None] * resolutions).T
        entries[:, self._too_large] = len(self._cost) - 1
        for entry in np.unique(entries[~self._known.take(entries)]).tolist():
            slot = int(np.searchsorted(self._starts, entry, side="right")) - 1
            indices = np.unravel_index(entry - self._starts[slot], (len(self._family.resolutions), *self._shapes[slot]))
            self._cost[entry], self._present[entry] = self._look_up(slot, *map(int, indices))
            self._known[entry] = True
        cost, present = self._cost.take(entries), self._present.take(entries)
        for slot in self._too_large:
            for arch, indices in enumerate(rows[:, [self._resolution, *self._family.columns[slot]]].tolist()):
                cost[arch, slot], present[arch, slot] = self._look_up(slot, *indices)
        return cost, present

    def _look_up(self, slot: int, resolution: int, *choices: int) -> tuple[float, bool]:
        """Return the cost of one block and whether there is one, for indices of the resolution and of the choices."""
        block = self._family.slot_block(slot, choices)
        if block is None:
            return 0.0, False
        key = (block, self._family.slots[slot].size(self._family.resolutions[resolution]))
        if key not in self._block_costs:
            self._block_costs[key] = self._block_cost(*key)
        return self._block_costs[key], True


def chunks(rows: Rows) -> Iterator[Rows]:
    """Split rows into chunks that the processor's caches can hold."""
    for start in range(0, len(rows), _CHUNK):
        yield rows[start : start + _CHUNK]


def distinct_blocks(family: Family) -> Iterable[tuple[Block, int]]:
    """Return each block and input size that occurs in the family, once: the rows of a latency table."""
    n_values = [len(choice.values) for choice in family.space.choices]
    return dict.fromkeys(
        (block, slot.size(resolution))
        for index, (slot, columns) in enumerate(zip(family.slots, family.columns, strict=True))
        for choices in np.ndindex(*(n_values[column] for column in columns))
        if (block := family.slot_block(index, choices)) is not None
        for resolution in family.resolutions
    )
