"""Networks of archs as directed graphs, for predictors that read how operations are connected."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ofa.space.arch import Rows


class Graphs(NamedTuple):
    """Directed graphs of `n` archs with the same nodes, in an order in which data can flow through them.

    The first node is the input, the last one the output.

    Attributes:
        kinds: what each node is `[n, nodes]`; -1 where an arch lacks it.
        sizes: numbers that describe each node `[n, nodes, n_sizes]`, such as the logarithms of its channels.
        edges: number of connections from a node (second axis) to a later one (third axis) `[n, nodes, nodes]`.
    """

    kinds: Rows
    sizes: NDArray[np.float32]
    edges: NDArray[np.float32]


def chain(kinds: Rows, sizes: NDArray[np.float32]) -> Graphs:
    """Return the graphs in which each node that an arch has is connected to the next one that it has."""
    present = kinds >= 0
    order = np.where(present, np.cumsum(present, axis=1), -1)
    edges = (order[:, None, :] == order[:, :, None] + 1) & present[:, :, None] & present[:, None]
    return Graphs(kinds, sizes, edges.astype(np.float32))
