"""A transformer over the nodes of archs that also mixes what is connected, as PINAT does (Lu et al., AAAI 2023)."""

import torch
from torch import Tensor, nn

from ofa.predict.network import NetworkPredictor, NetworkSettings, NodeEmbedding, Nodes

_HEADS = 4


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
        self.connected = nn.ModuleList(nn.Linear(2 * hidden, hidden) for _ in range(settings.layers))
        self.bias = nn.Parameter(torch.randn(2, _HEADS))
        self.norm, self.head = nn.LayerNorm(hidden), nn.Linear(hidden, 1)

    def forward(self, nodes: Nodes) -> Tensor:
        """Return the scores `[n]`."""
        x, absent = self.embedding(nodes), nodes.kinds == 0
        before, after = self.bias[:, None, :, None, None]
        bias = before * nodes.edges.mT[:, None] + after * nodes.edges[:, None]
        bias = bias.masked_fill(absent[:, None, None], -1e4).flatten(0, 1)  # [n * heads, nodes, nodes]
        from_before, from_after = nodes.means()
        for layer, connected in zip(self.layers, self.connected, strict=True):
            x = layer(x + connected(torch.cat([from_before @ x, from_after @ x], dim=2)), src_mask=bias)
            x = x.masked_fill(absent[..., None], 0)
        scores: Tensor = self.head(self.norm(x[:, 0]))[:, 0]
        return scores


class Transformer(NetworkPredictor):
    """A transformer whose tokens are the nodes of an arch's graph, or its choices where there is only a space.

    Before each layer, a node reads the nodes that it is connected with; within it, each head learns how much more it
    attends to those.
    """

    name = "transformer"
    Settings = NetworkSettings
    network = _Network
