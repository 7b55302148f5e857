"""The accuracy predictor: a small ensemble of multi-layer perceptrons over one-hot archs (arXiv 1908.09791, 3.4)."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPRegressor
from threadpoolctl import threadpool_limits

from ofa.core.config import Config
from ofa.core.errors import CheckpointError
from ofa.core.tensors import read_tensors, write_tensors
from ofa.predict.denoise import Floats
from ofa.space.arch import Rows
from ofa.space.search_space import SearchSpace

Layer = tuple[NDArray[np.float32], NDArray[np.float32]]


class PredictorConfig(Config):
    """How the accuracy predictor is fitted."""

    members: int = Field(5, ge=1, le=50)
    """Networks in the ensemble; they differ in their first weights and in the archs they are fitted on."""
    hidden: int = Field(64, ge=1)
    """Width of the two hidden layers."""
    alpha: float = Field(0.3, ge=0)
    """L2 penalty on the weights."""
    test_percent: float = Field(20.0, gt=0, lt=100)
    """Share of the measured archs kept for judging the predictor."""


class AccuracyPredictor:
    """Predicts the accuracy of archs from a few measured ones.

    Args:
        space: the archs' space.
        layers: for each layer, weights `[members, inputs, outputs]` and biases `[members, 1, outputs]`.
        center: mean of the accuracies it was fitted on, in percent.
        scale: their standard deviation, in percent.
    """

    def __init__(self, space: SearchSpace, layers: list[Layer], center: float, scale: float) -> None:
        self.space, self.layers, self.center, self.scale = space, layers, center, scale

    def __call__(self, rows: Rows) -> tuple[Floats, Floats]:
        """Mean and standard deviation over the ensemble, in percent, each `[n]`, of rows `[n, n_choices]`."""
        x = self.space.one_hot(rows)[None]  # [1, n, features]
        *hidden, (last_weights, last_biases) = self.layers
        for weights, biases in hidden:
            x = np.maximum(x @ weights + biases, 0)  # [members, n, outputs]
        x = x @ last_weights + last_biases
        accuracy = self.center + self.scale * x[..., 0].astype(np.float64)
        return accuracy.mean(axis=0), accuracy.std(axis=0)

    @classmethod
    def fit(
        cls, space: SearchSpace, rows: Rows, top1_percent: Floats, config: PredictorConfig, seed: int
    ) -> AccuracyPredictor:
        """Fits an ensemble on archs `[n, n_choices]` and their measured accuracies `[n]`."""
        center, scale = float(top1_percent.mean()), float(top1_percent.std()) or 1.0
        features, targets = space.one_hot(rows).astype(np.float64), (top1_percent - center) / scale
        rng = np.random.default_rng(seed)
        members = []
        for member in range(config.members):
            chosen = rng.permutation(len(rows))[: max(2, round(0.9 * len(rows)))]
            network = MLPRegressor(
                hidden_layer_sizes=(config.hidden, config.hidden),
                alpha=config.alpha,
                solver="lbfgs",
                max_iter=300,
                random_state=seed + member,
            )
            # Matrices this small are slower on several threads, by far so on a busy machine. Stopping early is part of
            # the regularization.
            with threadpool_limits(1, user_api="blas"), warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)
                members.append(network.fit(features[chosen], targets[chosen]))
        layers = [
            (
                np.stack([m.coefs_[i] for m in members]).astype(np.float32),
                np.stack([m.intercepts_[i][None] for m in members]).astype(np.float32),
            )
            for i in range(len(members[0].coefs_))
        ]
        return cls(space, layers, center, scale)

    def save(self, path: Path) -> None:
        """Writes the predictor as safetensors, whole or not at all."""
        arrays = {"center": np.array([self.center]), "scale": np.array([self.scale])}
        for i, (weights, biases) in enumerate(self.layers):
            arrays |= {f"layers.{i}.weights": weights, f"layers.{i}.biases": biases}
        tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
        write_tensors(path, tensors, {"choices": repr(self.space.choices)})

    @classmethod
    def load(cls, path: Path, space: SearchSpace) -> AccuracyPredictor:
        """Reads what `save` wrote.

        Raises:
            CheckpointError: missing, truncated, or fitted on another space.
        """
        tensors, metadata = read_tensors(path)
        arrays = {name: tensor.numpy() for name, tensor in tensors.items()}
        try:
            n_layers = sum(name.endswith("weights") for name in arrays)
            layers = [(arrays[f"layers.{i}.weights"], arrays[f"layers.{i}.biases"]) for i in range(n_layers)]
            center, scale = float(arrays["center"][0]), float(arrays["scale"][0])
        except KeyError as error:
            raise CheckpointError(f"{path} is not a predictor, it lacks {error}; fit it again") from error
        if metadata.get("choices") != repr(space.choices):
            raise CheckpointError(f"{path} was fitted on another search space; fit it again")
        return cls(space, layers, center, scale)
