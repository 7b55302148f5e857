"""A policy network that writes archs choice by choice, trained by REINFORCE (Zoph and Le, 2017; arXiv 1611.01578)."""

from collections.abc import Callable
from typing import Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from ofa.core.config import Config
from ofa.predict.predictor import under
from ofa.search.algorithm import Algorithm, State
from ofa.search.pareto import Floats
from ofa.space.arch import Rows


class ReinforceSettings(Config):
    """Settings of the search `reinforce`."""

    policy: Literal["lstm", "transformer"] = "lstm"
    """The network that reads the choices made so far."""
    width: int = Field(64, ge=4, le=1024, multiple_of=4)
    """Width of the policy."""
    lr: float = Field(0.01, gt=0, le=1)
    """Learning rate of Adam."""
    entropy: float = Field(0.01, ge=0, le=10)
    """Weight of the policy's entropy beside the reward, which keeps it from settling early."""
    window: int = Field(100, ge=2, le=100_000)
    """The reward of an arch is the share of so many archs before it that it beats."""


class Reinforce(Algorithm):
    """The policy draws archs; what it drew is made likelier or less likely by how good it was.

    The reward needs no scale: it is the share of the archs told lately that an arch comes before, in the order of
    NSGA-II if there are several objectives or constraints. Its mean is the baseline. Choices that are inactive or
    follow others have no part.
    """

    name = "reinforce"
    Settings = ReinforceSettings
    settings: ReinforceSettings

    def _begin(self) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(self.rng.integers(2**31)))
            n_values = [len(choice.values) for choice in self.space.choices]
            self._policy = _Policy(n_values, self.settings.policy, self.settings.width)
        self._optimizer = torch.optim.Adam(self._policy.parameters(), lr=self.settings.lr)

    def _propose(self, n: int) -> Rows:
        with torch.no_grad():
            rows = self._new(n, lambda n: self._policy.sample(n, self.space.canonical, self.rng))
        # A policy that is sure of itself draws what was seen.
        return rows if len(rows) == n else np.concatenate([rows, self._random(n - len(rows))])

    def _learn(self, rows: Rows, values: Floats) -> None:
        del values  # they are kept
        order = self.best(slice(-max(self.settings.window, len(rows)), None))
        beaten = np.empty(len(order))
        beaten[order] = np.linspace(1, 0, len(order))
        advantage = torch.from_numpy(beaten[-len(rows) :] - 0.5).float()
        free = torch.from_numpy(self.space.free(rows))
        logits = self._policy(torch.from_numpy(rows))
        log_probability = (logits.gather(2, torch.from_numpy(rows)[:, :, None])[:, :, 0] * free).sum(dim=1)
        entropy = -(logits.exp() * logits.clamp_min(-1e9)).sum(dim=2)
        loss = -(advantage * log_probability).mean() - self.settings.entropy * (entropy * free).sum(dim=1).mean()
        self._optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self._policy.parameters(), 1.0)
        self._optimizer.step()

    def state(self) -> State:
        """Return everything that `restore` needs, by name."""
        policy = {f"policy.{name}": tensor.numpy().copy() for name, tensor in self._policy.state_dict().items()}
        moments = {
            f"adam.{i}.{name}": tensor.numpy().copy()
            for i, of_parameter in self._optimizer.state_dict()["state"].items()
            for name, tensor in of_parameter.items()
        }
        return super().state() | policy | moments

    def restore(self, state: State) -> None:
        """Continue where another search was."""
        super().restore(state)
        self._policy.load_state_dict({n: torch.from_numpy(x.copy()) for n, x in under("policy.", state).items()})
        moments: dict[int, dict[str, Tensor]] = {}
        for key, array in under("adam.", state).items():
            i, _, name = key.partition(".")
            moments.setdefault(int(i), {})[name] = torch.from_numpy(array.copy())
        self._optimizer.load_state_dict(self._optimizer.state_dict() | {"state": moments})


class _Policy(nn.Module):
    """Log-probabilities of each choice's values, given the choices before it."""

    allowed: Tensor
    offsets: Tensor

    def __init__(self, n_values: list[int], kind: str, width: int) -> None:
        super().__init__()
        most = max(n_values)
        self.first = nn.Parameter(torch.zeros(1, 1, width))
        self.values = nn.Embedding(len(n_values) * most, width)  # of each value of each choice
        self.places = nn.Parameter(torch.randn(1, len(n_values), width) * 0.1)
        self.body: nn.Module = nn.LSTM(width, width, batch_first=True)
        if kind == "transformer":
            layer = nn.TransformerEncoderLayer(width, 4, 2 * width, dropout=0.0, batch_first=True, norm_first=True)
            self.body = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(width, most)
        nn.init.zeros_(self.head.weight)  # all values are equally likely at first
        nn.init.zeros_(self.head.bias)
        self.register_buffer("allowed", torch.arange(most) < torch.tensor(n_values)[:, None], persistent=False)
        self.register_buffer("offsets", torch.arange(len(n_values)) * most, persistent=False)

    def forward(self, rows: Tensor) -> Tensor:
        """Return log-probabilities `[n, n_choices, most values]` of rows `[n, n_choices]`, each read up to a choice."""
        before = self.values(rows[:, :-1] + self.offsets[: rows.shape[1] - 1])
        x = torch.cat([self.first.expand(len(rows), -1, -1), before], dim=1) + self.places[:, : rows.shape[1]]
        if isinstance(self.body, nn.LSTM):
            x, _ = self.body(x)
        else:
            causal = nn.Transformer.generate_square_subsequent_mask(x.shape[1])
            x = self.body(x, mask=causal, is_causal=True)
        logits: Tensor = self.head(x).masked_fill(~self.allowed[: x.shape[1]], -torch.inf)
        return logits.log_softmax(dim=2)

    def sample(self, n: int, canonical: Callable[[Rows], Rows], rng: np.random.Generator) -> Rows:
        """Draw `n` canonical rows, one choice after another, each given those before as it will be learned from."""
        rows = torch.zeros(n, len(self.offsets), dtype=torch.int64)
        for column in range(rows.shape[1]):
            probabilities = self(rows[:, : column + 1])[:, column].exp()
            drawn = torch.from_numpy(rng.random((n, 1)))
            rows[:, column] = (
                (probabilities.double().cumsum(dim=1) < drawn).sum(dim=1).clamp_max(int(self.allowed[column].sum()) - 1)
            )
            rows = torch.from_numpy(canonical(rows.numpy()))
        return rows.numpy()
