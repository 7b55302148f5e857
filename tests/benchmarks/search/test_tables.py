from itertools import product

import numpy as np
import pytest

from benchmarks.search import queries
from benchmarks.search.tables import _CELL_EDGES, _OPERATIONS, Table, _cell_graphs, _cells
from ofa.predict.encoding import Encoding
from ofa.space.choice import Choice
from ofa.space.search_space import SearchSpace


def walk(cell, node=0, path=()):
    """Yield the operations, skip connections left out, along every path of a cell from its input to its output."""
    if node == 3:
        yield path
        return
    for (start, end), operation in zip(_CELL_EDGES, cell, strict=True):
        if start == node and _OPERATIONS[operation] != "none":
            yield from walk(cell, end, path if _OPERATIONS[operation] == "skip_connect" else (*path, operation))


def paths_of_graph(kinds, edges, node=0, path=()):
    """Yield the kinds of nodes along every path of a graph, one for each of parallel connections."""
    if node == len(kinds) - 1:
        yield path[:-1]
        return
    for following in range(node + 1, len(kinds)):
        for _ in range(int(edges[node, following])):
            yield from paths_of_graph(kinds, edges, following, (*path, int(kinds[following])))


def test_the_graph_of_a_cell_has_its_paths():
    rows = _cells().space.sample(300, np.random.default_rng(0))
    graphs = _cell_graphs(rows)
    for cell, kinds, edges in zip(rows.tolist(), graphs.kinds, graphs.edges, strict=True):
        assert sorted(paths_of_graph(kinds, edges)) == sorted(walk(cell))


@pytest.mark.parametrize("algorithm", ["random", "local", "nsga2"])
def test_the_best_so_far_rises_to_the_best_of_a_table_that_is_exhausted(algorithm):
    space = SearchSpace([Choice("a", (0, 1, 2)), Choice("b", (0, 1, 2, 3))])
    rows = np.array(list(product(range(3), range(4))))
    table = Table(Encoding(space), rows, np.random.default_rng(0).permutation(12) + 80.0)
    best = queries.best_so_far(table, algorithm, {}, 3, 12, 0)
    assert len(best) == 12
    assert best == sorted(best)
    assert best[-1] == 91
