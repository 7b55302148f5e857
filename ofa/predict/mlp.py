"""Multi-layer perceptrons on one-hot archs, as once-for-all's predictor (arXiv 1908.09791, 3.4)."""

import warnings

import numpy as np
from pydantic import Field
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPRegressor

from ofa.predict.ensemble import Ensemble, EnsembleSettings
from ofa.predict.predictor import Measured, State
from ofa.predict.warp import Floats
from ofa.space.arch import Rows


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
        x = self.encoding.space.one_hot(rows)
        for i in range(2):
            x = np.maximum(x @ state[f"weights{i}"] + state[f"biases{i}"], 0)
        predicted: Floats = (x @ state["weights2"] + state["biases2"])[:, 0].astype(np.float64)
        return predicted
