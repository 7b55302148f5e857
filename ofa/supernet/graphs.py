"""Graphs of the networks of a family, whose nodes are slots; predictors read them."""

import math
from functools import cache, lru_cache
from typing import TYPE_CHECKING

import numpy as np

from ofa.space.arch import Rows
from ofa.space.graphs import Graphs, chain
from ofa.supernet.block import Block, skeleton

if TYPE_CHECKING:
    from ofa.supernet.family import Family

_SAMPLE = 256
"""Random archs whose blocks show which kinds there are."""


def chain_of_slots(family: "Family", rows: Rows) -> Graphs:
    """Return the graphs of rows `[n, n_choices]`: each slot is a node, connected to the next one that is not skipped.

    The kind of a node is the class of its block. Its sizes are logarithms: pixels along one side of its input, numbers
    of its input, parameters, and the largest kernel.
    """
    kinds = np.full((len(rows), len(family.slots)), -1)
    sizes = np.zeros((*kinds.shape, 4), dtype=np.float32)
    number = _kinds(family)
    resolutions = np.array(family.resolutions)[rows[:, family.space.column("resolution")]]
    for index, (slot, columns) in enumerate(zip(family.slots, family.columns, strict=True)):
        keys = np.column_stack([resolutions, rows[:, columns]])
        distinct, inverse = np.unique(keys, axis=0, return_inverse=True)
        for position, (resolution, *indices) in enumerate(distinct.tolist()):
            block = family.slot_block(index, tuple(indices))
            if block is not None:
                archs = inverse.reshape(-1) == position
                kinds[archs, index] = number.get(type(block).__name__, len(number))
                sizes[archs, index] = _sizes(block, slot.size(resolution))
    return chain(kinds, sizes)


@cache
def _kinds(family: "Family") -> dict[str, int]:
    space = family.space
    rows = np.concatenate([space.rows([space.largest]), space.sample(_SAMPLE, np.random.default_rng(0))])
    names = {type(block).__name__ for row in rows for _, block in family.blocks(row) if block is not None}
    return {name: number for number, name in enumerate(sorted(names))}


@lru_cache(maxsize=10_000)
def _sizes(block: Block, size: int) -> tuple[float, ...]:
    weights = list(skeleton(block.build).parameters())
    kernel = max((w.shape[-1] for w in weights if w.dim() == 4), default=1)
    numbers = (size, math.prod(block.input_shape(size)), 1 + sum(w.numel() for w in weights), kernel)
    return tuple(map(math.log2, numbers))
