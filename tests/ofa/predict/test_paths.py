from itertools import pairwise

import numpy as np
import pytest

from ofa.predict.paths import Paths
from ofa.space.graphs import Graphs


def graphs(edges, kinds):
    edges, kinds = np.array(edges, dtype=np.float32), np.array(kinds)
    return Graphs(kinds, np.zeros((*kinds.shape, 0), dtype=np.float32), edges)


@pytest.fixture
def random_graphs():
    """100 graphs of input, four operations of two kinds, and output; some connections are double."""
    rng = np.random.default_rng(0)
    edges = np.triu(rng.choice([0, 1, 2], p=[0.5, 0.4, 0.1], size=(100, 6, 6)), k=1)
    kinds = np.concatenate([np.zeros((100, 1)), rng.integers(2, 4, (100, 4)), np.ones((100, 1))], axis=1)
    return graphs(edges, kinds.astype(int))


def walk(edges, node, path=()):
    """Yield every path from a node to the last one, one for each of parallel connections."""
    if node == len(edges) - 1:
        yield path[:-1]
        return
    for following in range(node + 1, len(edges)):
        for _ in range(int(edges[node, following])):
            yield from walk(edges, following, (*path, following))


def test_paths_are_counted_as_by_walking_the_graph(random_graphs):
    numbers = Paths.of(random_graphs)(random_graphs)
    sequences = set()
    for i in range(100):
        sequences |= {tuple(random_graphs.kinds[i, list(path)]) for path in walk(random_graphs.edges[i], 0)}
    sequences = sorted(sequences)
    for i in range(100):
        paths = list(walk(random_graphs.edges[i], 0))
        found = [tuple(random_graphs.kinds[i, list(path)]) for path in paths]
        alive = {node for path in paths for node in path}
        kinds = [sum(random_graphs.kinds[i, node] == kind for node in alive) for kind in range(4)]
        lengths = [min(map(len, paths), default=6), max(map(len, paths), default=-1), len(paths)]
        expected = [*np.sqrt([found.count(sequence) for sequence in sequences]), *kinds, *lengths]
        assert numbers[i] == pytest.approx(expected)


def test_networks_whose_nodes_are_numbered_differently_have_equal_numbers(random_graphs):
    # The second and third node change places where they are not connected.
    apart = random_graphs.edges[:, 2, 3] == 0
    order = [0, 1, 3, 2, 4, 5]
    kinds, edges = random_graphs.kinds[apart], random_graphs.edges[apart]
    swapped = graphs(edges[:, order][:, :, order], kinds[:, order])
    paths = Paths.of(random_graphs)
    assert apart.sum() > 20
    assert paths(swapped) == pytest.approx(paths(graphs(edges, kinds)))


def test_long_chains_with_bypasses_have_too_many_paths_to_count():
    n = 30
    edges = np.zeros((1, n, n))
    for a, b in [*pairwise(range(n)), *zip(range(n), range(2, n), strict=False)]:
        edges[0, a, b] = 1
    assert Paths.of(graphs(edges, np.zeros((1, n), dtype=int))) is None
