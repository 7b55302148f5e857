"""A transformer over the nodes of archs; connections between them bias its attention (Graphormer, arXiv 2106.05234)."""

import torch
from torch import Tensor, nn

from ofa.predict.network import NetworkPredictor, NetworkSettings, NodeEmbedding, Nodes

_HEADS = 4


class Transformer(NetworkPredictor):
    """A transformer whose tokens are the nodes of an arch's graph, or its choices where there is only a space.

    Each head learns how much more a node attends to those before and to those after it.
    """

    name = "transformer"
    Settings = NetworkSettings

    def _build(self, n_kinds: int, n_nodes: int, n_sizes: int) -> nn.Module:
        return _Network(n_kinds, n_nodes, n_sizes, self.settings)


class _Network(nn.Module):
    def __init__(self, n_kinds: int, n_nodes: int, n_sizes: int, settings: NetworkSettings) -> None:
        super().__init__()
        hidden = settings.hidden
        self.embedding = NodeEmbedding(n_kinds, n_nodes, n_sizes, hidden)
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(
                hidden, _HEADS, 2 * hidden, settings.dropout, activation="gelu", batch_first=True, norm_first=True
            )
            for _ in range(settings.layers)
        )
        self.bias = nn.Parameter(torch.zeros(2, _HEADS))
        self.norm, self.head = nn.LayerNorm(hidden), nn.Linear(hidden, 1)

    def forward(self, nodes: Nodes) -> Tensor:
        """Return the scores `[n]`."""
        x = self.embedding(nodes)
        before, after = self.bias[:, None, :, None, None]
        bias = before * nodes.edges.mT[:, None] + after * nodes.edges[:, None]
        bias = bias.masked_fill((nodes.kinds == 0)[:, None, None], -1e4).flatten(0, 1)  # [n * heads, nodes, nodes]
        for layer in self.layers:
            x = layer(x, src_mask=bias)
        scores: Tensor = self.head(self.norm(x[:, 0]))[:, 0]
        return scores
