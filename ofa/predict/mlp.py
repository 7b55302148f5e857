"""Multi-layer perceptrons on one-hot archs, as once-for-all's predictor (arXiv 1908.09791, 3.4)."""

import warnings

import numpy as np
import torch
from pydantic import Field
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPRegressor
from torch import nn

from ofa.predict.ensemble import Ensemble, EnsembleSettings
from ofa.predict.predictor import Measured, State
from ofa.predict.warp import Floats
from ofa.space.arch import Rows

_CHUNK = 512
"""Archs that are predicted at once, so few that the processor's caches hold what is computed."""


class PerceptronSettings(EnsembleSettings):
    """Settings of the predictor `mlp`."""

    hidden: int = Field(64, ge=1, le=512)
    """Width of the two hidden layers."""
    alpha: float = Field(0.3, ge=0, le=1e6)
    """L2 penalty on the weights."""


class Perceptron(Ensemble):
    """Perceptrons with two hidden layers; the fastest to ask about many archs."""

    name = "mlp"
    Settings = PerceptronSettings
    settings: PerceptronSettings

    def _fit_member(self, measured: Measured, seed: int) -> State:
        shape, limits = (self.settings.hidden, self.settings.hidden), {"solver": "lbfgs", "max_iter": 300}
        network = MLPRegressor(hidden_layer_sizes=shape, alpha=self.settings.alpha, random_state=seed, **limits)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # to stop before convergence is a regularization
            network.fit(
                self.encoding.space.one_hot(measured.rows).astype(np.float64),
                measured.scores,
                sample_weight=measured.weights(),
            )
        layers = zip(network.coefs_, network.intercepts_, strict=True)
        return {
            f"{kind}{i}": array.astype(np.float32)
            for i, layer in enumerate(layers)
            for kind, array in zip(("weights", "biases"), layer, strict=True)
        }

    def _predict_member(self, state: State, rows: Rows) -> Floats:
        predicted: Floats = self._predict_members([state], rows)[0]
        return predicted

    def _predict_members(self, states: list[State], rows: Rows) -> Floats:
        # All members at once. Their first layers read a row of weights for each value, not a one-hot vector.
        weights = np.concatenate([state["weights0"] for state in states], axis=1)
        first = torch.from_numpy(np.concatenate([weights, np.zeros_like(weights[:1])]))  # of inactive choices
        layers = {name: torch.from_numpy(np.stack([state[name] for state in states])) for name in states[0]}

        def predict(codes: torch.Tensor) -> torch.Tensor:
            x = nn.functional.embedding_bag(codes, first, mode="sum")  # [n, members * hidden]
            x = x.view(len(codes), len(states), weights.shape[1] // len(states)).transpose(0, 1)
            x = x.add_(layers["biases0"][:, None]).relu_()
            x = torch.baddbmm(layers["biases1"][:, None], x, layers["weights1"]).relu_()
            return (x * layers["weights2"].mT).sum(dim=2) + layers["biases2"]

        codes = torch.from_numpy(self.encoding.space.codes(rows))
        predicted: Floats = torch.cat([predict(part) for part in torch.split(codes, _CHUNK)], dim=1).double().numpy()
        return predicted
