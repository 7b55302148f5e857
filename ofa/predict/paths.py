"""What the paths of graphs from input to output tell of archs (BANANAS, arXiv 1910.11858, 3)."""

from collections.abc import Iterator
from itertools import pairwise
from typing import Self

import numpy as np
from numpy.typing import NDArray

from ofa.space.arch import Rows
from ofa.space.graphs import Graphs

Floats = NDArray[np.float64]

_MOST_PATHS, _MOST_SEQUENCES = 256, 512


class Paths:
    """Numbers of paths by the operations on them, nodes on paths by their kind, and the lengths of paths.

    Nodes that are on no path from input to output compute nothing, so they do not count. Equal networks whose nodes are
    numbered differently have equal numbers.

    Args:
        positions: the nodes, input and output left out, of every path that an arch can have.
        sequences: the kinds of operations along paths, each of which is counted.
        n_kinds: number of kinds of nodes.
    """

    def __init__(self, positions: list[tuple[int, ...]], sequences: list[tuple[int, ...]], n_kinds: int) -> None:
        self._positions, self._n_kinds = positions, n_kinds
        self._column = {sequence: i for i, sequence in enumerate(sequences)}

    @classmethod
    def of(cls, graphs: Graphs) -> Self | None:
        """Return the paths of such graphs; None if they are too many to tell archs apart by them."""
        possible, positions = (graphs.edges > 0).max(axis=0), list[tuple[int, ...]]()
        open_paths: list[tuple[int, ...]] = [(0,)]
        while open_paths:
            path = open_paths.pop()
            for node in np.flatnonzero(possible[path[-1]]).tolist():
                if node == possible.shape[0] - 1:
                    positions.append(path[1:])
                else:
                    open_paths.append((*path, node))
            if len(positions) + len(open_paths) > _MOST_PATHS:
                return None
        n_kinds = int(graphs.kinds.max()) + 1
        paths = cls(sorted(positions), [], n_kinds)
        sequences = sorted({one for _, kinds, number in paths._along(graphs) for one in map(tuple, kinds[number > 0])})
        return cls(paths._positions, sequences, n_kinds) if len(sequences) <= _MOST_SEQUENCES else None

    def __call__(self, graphs: Graphs) -> Floats:
        """Return the numbers `[n, n_numbers]`: roots of the numbers of paths, nodes by kind, least and most nodes."""
        n, n_nodes = graphs.kinds.shape
        counts, alive = np.zeros((n, len(self._column))), np.zeros((n, n_nodes), dtype=bool)
        least, most = np.full(n, n_nodes), np.full(n, -1)
        for position, kinds_along, number in self._along(graphs):
            archs = np.flatnonzero(number)
            sequences, inverse = np.unique(kinds_along[archs], axis=0, return_inverse=True)
            of_sequence = np.array([self._column.get(tuple(one), -1) for one in sequences.tolist()], dtype=np.int64)
            column = of_sequence[inverse.reshape(-1)]
            counts[archs[column >= 0], column[column >= 0]] += number[archs[column >= 0]]
            alive[archs[:, None], np.array(position, dtype=np.int64)] = True
            least[archs], most[archs] = np.minimum(least[archs], len(position)), np.maximum(most[archs], len(position))
        kinds = [(alive & (graphs.kinds == kind)).sum(axis=1) for kind in range(self._n_kinds)]
        return np.concatenate([np.sqrt(counts), np.stack([*kinds, least, most, counts.sum(axis=1)], axis=1)], axis=1)

    def _along(self, graphs: Graphs) -> Iterator[tuple[list[int], Rows, Floats]]:
        """Yield, for each path, its nodes, their kinds in each arch `[n, length]`, and how often archs have it `[n]`.

        An arch has a path as often as the product of its connections.
        """
        last = graphs.kinds.shape[1] - 1
        for position in map(list, self._positions):
            connections = [graphs.edges[:, a, b] for a, b in pairwise([0, *position, last])]
            yield position, graphs.kinds[:, position], np.prod(connections, axis=0, dtype=np.float64)
