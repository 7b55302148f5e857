import math
from itertools import pairwise

import numpy as np
import pytest

import ofa
from ofa import Choice, Family, SearchSpace
from tests.families import FAMILIES


@pytest.mark.parametrize("name", FAMILIES)
def test_nodes_are_the_slots_that_an_arch_has_in_their_order(name):
    family = ofa.create_family(name)
    rows = family.space.sample(6, np.random.default_rng(0))
    graphs = family.graphs(rows)
    numbers = {}
    for row, kinds, sizes, edges in zip(rows, *graphs, strict=True):
        blocks = [block for _, block in family.blocks(row)]
        assert [kind >= 0 for kind in kinds] == [block is not None for block in blocks]
        nodes = np.flatnonzero(kinds >= 0)
        assert [*zip(*np.nonzero(edges), strict=True)] == [*pairwise(nodes)]
        for node in nodes:
            assert numbers.setdefault(type(blocks[node]), kinds[node]) == kinds[node]
        resolution = dict(family.space.decode(row))["resolution"]
        for node in nodes[[0, 1, -2, -1]]:
            block, size = blocks[node], family.slots[node].size(resolution)
            params = sum(p.numel() for p in block.build().parameters())
            expected = [size, math.prod(block.input_shape(size)), 1 + params]
            np.testing.assert_allclose(2 ** sizes[node, :3].astype(float), expected, rtol=1e-5)
    assert len(set(numbers.values())) == len(numbers)


def test_the_size_of_a_kernel_is_read():
    family = ofa.create_family("small_mobilenet_v3", resolutions=[16])
    archs = [family.space.arch({**family.space.largest, "stage1.block0.kernel": kernel}) for kernel in (3, 5)]
    small, large = family.graphs(family.space.rows(archs)).sizes
    assert (small != large).any(axis=1).sum() == 1
    np.testing.assert_allclose([2 ** one[(small != large).any(axis=1), 3] for one in (small, large)], [[3], [5]])


def test_networks_that_are_single_blocks_have_no_graphs():
    import torch

    family = Family.from_builder(SearchSpace([Choice("width", (4, 8))]), lambda arch: torch.nn.Linear(1, arch["width"]))
    assert family.graphs is None
