"""Graph convolutions over the nodes of archs, with a node that is connected to all (BRP-NAS, arXiv 2007.08668, 3.1)."""

import torch
from torch import Tensor, nn

from ofa.predict.network import NetworkPredictor, NetworkSettings, NodeEmbedding, Nodes


class _Network(nn.Module):
    def __init__(self, n_kinds: int, n_nodes: int, n_sizes: int, settings: NetworkSettings) -> None:
        super().__init__()
        hidden = settings.hidden
        self.embedding = NodeEmbedding(n_kinds, n_nodes, n_sizes, hidden)
        self.layers = nn.ModuleList(nn.Linear(3 * hidden, hidden) for _ in range(settings.layers))
        self.norms = nn.ModuleList(nn.LayerNorm(hidden) for _ in range(settings.layers))
        self.dropout = nn.Dropout(settings.dropout)
        self.head = nn.Linear(hidden, 1)

    def forward(self, nodes: Nodes) -> Tensor:
        """Return the scores `[n]`."""
        x, present = self.embedding(nodes), (nodes.kinds > 0).float()
        edges = nodes.edges.clone()
        edges[:, 0, 1:], edges[:, 1:, 0] = present[:, 1:], present[:, 1:]
        before, after = nodes._replace(edges=edges).means()
        for layer, norm in zip(self.layers, self.norms, strict=True):
            mixed = layer(torch.cat([x, before @ x, after @ x], dim=2))
            x = x + self.dropout(norm(mixed).relu()) * present[..., None]
        scores: Tensor = self.head(x[:, 0])[:, 0]
        return scores


class GraphConvolution(NetworkPredictor):
    """Graph convolutions along and against the connections of a network.

    Reads the graphs of cells and families; where there is only a space, the active choices in their order.
    """

    name = "gcn"
    Settings = NetworkSettings
    network = _Network
