import numpy as np
import pytest
import torch

import ofa
from ofa.predict.encoding import Encoding
from ofa.predict.network import Nodes, _wrong_order
from ofa.space.choice import Choice
from ofa.space.graphs import Graphs
from ofa.space.search_space import SearchSpace

NAMES = ("gcn", "transformer")
SPACE = SearchSpace([Choice("first", (0, 1)), Choice("skips", (0, 1))])


def two_layers(rows):
    """Three nodes, the last of which sees both others, or only the second."""
    edges = np.zeros((len(rows), 4, 4), dtype=np.float32)
    edges[:, 0, 1] = edges[:, 1, 2] = edges[:, 2, 3] = 1
    edges[:, 1, 3] = rows[:, 1]
    kinds = np.stack([0 * rows[:, 0], 2 + rows[:, 0], 2 + 0 * rows[:, 0], 1 + 0 * rows[:, 0]], axis=1)
    return Graphs(kinds, np.zeros((len(rows), 4, 0), dtype=np.float32), edges)


@pytest.mark.parametrize("name", NAMES)
def test_what_is_connected_is_read(name):
    encoding = Encoding(SPACE, graph=two_layers)
    rows = np.array([[0, 0], [0, 1], [1, 0], [1, 1]] * 5)
    accuracy = 70.0 + rows[:, 0] + 3 * rows[:, 1]
    predictor = ofa.predict.create(name, encoding, members=2, hidden=16, layers=2, steps=120, lr=0.01, warp="none")
    np.testing.assert_allclose(predictor.fit(rows, accuracy)(rows[:4]), accuracy[:4], atol=0.9)


@pytest.mark.parametrize("name", NAMES)
def test_nodes_that_an_arch_lacks_change_nothing(name):
    predictor = ofa.predict.create(name, SPACE, hidden=16)
    torch.manual_seed(0)
    network = predictor._build(5, 4, 2).eval()
    kinds, sizes = torch.tensor([[1, 2, 0, 4]]), torch.randn(1, 4, 2)
    edges = torch.zeros(1, 4, 4)
    edges[0, 1, 3] = 1
    before = network(Nodes(kinds, sizes, edges))
    sizes[0, 2] = 99
    assert torch.allclose(network(Nodes(kinds, sizes, edges)), before, atol=1e-6)
    present = kinds.clone()
    present[0, 2] = 3
    assert not torch.allclose(network(Nodes(present, sizes, edges)), before, atol=1e-3)


def test_the_ranking_loss_counts_pairs_by_how_far_apart_they_are():
    scores, targets = torch.tensor([0.0, 2.0, 1.0]), torch.tensor([0.0, 1.0, 3.0])
    pairs = {(0, 1): 1.0, (0, 2): 3.0, (1, 2): 2.0}
    loss = [w * np.log1p(np.exp(float(scores[a] - scores[b]))) for (a, b), w in pairs.items()]
    assert float(_wrong_order(scores, targets)) == pytest.approx(sum(loss) / sum(pairs.values()))


def test_choices_are_nodes_where_there_is_only_a_space():
    choices = [Choice("depth", (1, 2)), Choice("a.kernel", (3, 5, 7)), Choice("b.kernel", (3, 5, 7), ("depth", 2))]
    encoding = Encoding(SearchSpace(choices))
    kinds, sizes, edges = encoding.graphs(np.array([[1, 2, 1], [0, 1, 0]]))
    depth, first, second = (kind + 2 for kind in encoding.kinds)
    assert kinds.tolist() == [[0, depth, first, second, 1], [0, depth, first, -1, 1]]
    assert sizes.max(axis=2).tolist() == [[0, 1, 1, 0.5, 0], [0, 0, 0.5, 0, 0]]
    assert [*zip(*np.nonzero(edges[1]), strict=True)] == [(0, 1), (1, 2), (2, 4)]
    assert edges[0].sum() == 4
