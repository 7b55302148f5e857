"""Predictors that are neural networks over the nodes of archs; each file that uses this says how nodes are mixed."""

from typing import ClassVar, Literal, NamedTuple

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from ofa.predict.ensemble import Ensemble, EnsembleSettings
from ofa.predict.predictor import Measured, State, under
from ofa.predict.warp import Floats
from ofa.space.arch import Rows

_BATCH = 256
_SAMPLE = 1000
"""Random archs whose nodes show which kinds there are."""
_BLOCK = 1024
_WARMUP = 0.1
"""Share of the steps over which the learning rate rises."""


class NetworkSettings(EnsembleSettings):
    """Settings of predictors that are neural networks over nodes."""

    warp: Literal["auto", "none", "ranks"] = "ranks"
    """As of every predictor; by default ranks, as to try both takes twice the time."""
    hidden: int = Field(64, ge=8, le=1024, multiple_of=8)
    """Width of the network."""
    layers: int = Field(3, ge=1, le=32)
    """Times that nodes are mixed."""
    dropout: float = Field(0.1, ge=0, lt=1)
    """Share of the activations that is dropped while it is fitted."""
    steps: int = Field(200, ge=1, le=100_000)
    """Steps of AdamW, each on at most 256 archs."""
    lr: float = Field(2e-3, gt=0)
    """Largest learning rate."""
    weight_decay: float = Field(0.05, ge=0)
    """Weight decay of AdamW, on all weights and biases."""
    ranking: float = Field(0.5, ge=0, le=1)
    """Share of the loss that is of pairs in the wrong order (BRP-NAS, arXiv 2007.08668, 3.2); the rest is the squared
    error."""


class Nodes(NamedTuple):
    """The nodes of `n` archs, one of them added to read the answer from.

    Attributes:
        kinds: what each node is `[n, nodes]`; 0 where an arch lacks it, 1 for the one that was added, the first.
        sizes: numbers that describe each node `[n, nodes, n_sizes]`, standardized.
        edges: connections from a node (second axis) to a later one (third axis) `[n, nodes, nodes]`.
    """

    kinds: Tensor
    sizes: Tensor
    edges: Tensor

    def means(self) -> tuple[Tensor, Tensor]:
        """Return matrices `[n, nodes, nodes]` that take means over the nodes before, and over those after each node."""
        before, after = (e / e.sum(2, keepdim=True).clamp_min(1) for e in (self.edges.mT, self.edges))
        return before, after

    def part(self, chosen: Tensor | slice) -> "Nodes":
        """Return the nodes of some archs."""
        return Nodes(*(x[chosen] for x in self))


class NodeEmbedding(nn.Module):
    """Vectors `[n, nodes, hidden]` for the kind, the place and the sizes of nodes; 0 for those that an arch lacks."""

    def __init__(self, n_kinds: int, n_nodes: int, n_sizes: int, hidden: int) -> None:
        super().__init__()
        self.kind = nn.Embedding(n_kinds, hidden)
        self.place = nn.Parameter(0.2 * torch.randn(n_nodes, hidden))
        self.size = nn.Linear(n_sizes, hidden, bias=False) if n_sizes else None

    def forward(self, nodes: Nodes) -> Tensor:
        """Return the vectors."""
        x: Tensor = self.kind(nodes.kinds) + self.place
        if self.size is not None:
            x = x + self.size(nodes.sizes)
        return x * (nodes.kinds > 0)[..., None]


class NetworkPredictor(Ensemble):
    """An ensemble of neural networks over the nodes of archs: those of their graphs, or else their choices."""

    settings: NetworkSettings
    network: ClassVar[type[nn.Module]]
    """Maps `Nodes` of `n` archs to scores `[n]`; made of the numbers of kinds, nodes and sizes, and the settings."""

    def _build(self, n_kinds: int, n_nodes: int, n_sizes: int) -> nn.Module:
        return self.network(n_kinds, n_nodes, n_sizes, self.settings)

    def _fit_member(self, measured: Measured, seed: int) -> State:
        nodes, scores = self._nodes(measured.rows), measured.scores
        present = nodes.sizes[nodes.kinds > 0].numpy()
        sample = self._nodes(self.encoding.space.sample(_SAMPLE, np.random.default_rng(0)))
        n_kinds = 1 + max(int(one.kinds.max()) for one in (nodes, sample))
        state: State = {
            "shape": np.array([n_kinds, *nodes.sizes.shape[1:]]),
            "sizes": np.stack([present.mean(axis=0), np.maximum(present.std(axis=0), 1e-3)]),
            "scores": np.array([scores.mean(), scores.std()]),
        }
        targets = (scores - scores.mean()) / (scores.std() or 1.0)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            network = self._build(*state["shape"].tolist())
            _fit(network, _standardized(nodes, state), measured._replace(scores=targets), self.settings)
        return state | {f"weights.{name}": tensor.numpy() for name, tensor in network.state_dict().items()}

    def _predict_member(self, state: State, rows: Rows) -> Floats:
        with torch.random.fork_rng(devices=[]):  # initial weights, which are replaced, are drawn
            network = self._build(*state["shape"].tolist()).eval()
        network.load_state_dict({name: torch.from_numpy(np.array(x)) for name, x in under("weights.", state).items()})
        parts = [rows[start : start + _BLOCK] for start in range(0, len(rows), _BLOCK)]
        with torch.no_grad():
            scores = [network(_standardized(self._nodes(part), state)).double().numpy() for part in parts]
        mean, scale = state["scores"]
        predicted: Floats = mean + scale * np.concatenate([np.zeros(0), *scores])
        return predicted

    def _nodes(self, rows: Rows) -> Nodes:
        graphs = self.encoding.graphs(rows)
        kinds = np.pad(graphs.kinds + 2, ((0, 0), (1, 0)), constant_values=1)
        kinds[kinds == 1] = 0
        kinds[:, 0] = 1
        sizes = np.pad(graphs.sizes, ((0, 0), (1, 0), (0, 0)))
        edges = np.pad(graphs.edges, ((0, 0), (1, 0), (1, 0)))
        return Nodes(torch.from_numpy(kinds), torch.from_numpy(sizes), torch.from_numpy(edges).clamp_max(1))


def _standardized(nodes: Nodes, state: State) -> Nodes:
    """Return nodes with sizes as the network learned them; kinds that it has not seen are taken for the last one."""
    center, spread = torch.from_numpy(np.array(state["sizes"]))
    kinds = nodes.kinds.clamp_max(int(state["shape"][0]) - 1)
    return Nodes(kinds, (nodes.sizes - center) / spread * (kinds > 0)[..., None], nodes.edges)


def _fit(network: nn.Module, nodes: Nodes, measured: Measured, settings: NetworkSettings) -> None:
    targets = torch.from_numpy(measured.scores).float()
    weights = torch.from_numpy(measured.weights()).float()
    optimizer = torch.optim.AdamW(network.parameters(), lr=settings.lr, weight_decay=settings.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, settings.lr, total_steps=settings.steps + 1, pct_start=max(_WARMUP, 1.5 / (settings.steps + 1))
    )
    network.train()
    for _ in range(settings.steps):
        drawn = torch.randperm(len(targets))[:_BATCH]
        scores = network(nodes.part(drawn))
        loss = (1 - settings.ranking) * (weights[drawn] * (scores - targets[drawn]).square()).mean()
        if settings.ranking:
            loss = loss + settings.ranking * _wrong_order(scores, targets[drawn])
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        schedule.step()


def _wrong_order(scores: Tensor, targets: Tensor) -> Tensor:
    """Return the logistic loss of pairs, each weighted by how far apart its targets are."""
    apart = targets[:, None] - targets
    loss = nn.functional.softplus(-(scores[:, None] - scores) * apart.sign())
    return (loss * apart.abs()).sum() / apart.abs().sum().clamp_min(1e-6)
