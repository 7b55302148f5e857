"""The accuracy predictor: a small ensemble of multi-layer perceptrons on one-hot archs (arXiv 1908.09791, 3.4)."""

import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from scipy.stats import kendalltau, norm
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPRegressor
from threadpoolctl import threadpool_limits

from ofa.core.config import Config
from ofa.core.errors import CheckpointError, PredictorError
from ofa.core.prediction import INTERVAL, Prediction
from ofa.core.tensors import read_tensors, write_tensors
from ofa.predict.denoise import Floats, denoised_percent
from ofa.space.arch import Rows
from ofa.space.search_space import SearchSpace

Layer = tuple[NDArray[np.float32], NDArray[np.float32]]  # weights, biases


class PredictorConfig(Config):
    """How the accuracy predictor is fitted."""

    members: int = Field(5, ge=1, le=50)
    """Networks in the ensemble; they differ in their initial weights and in the archs that they are fitted to."""
    hidden: int = Field(64, ge=1, le=512)
    """Width of the two hidden layers."""
    alpha: float = Field(0.3, ge=0, le=1e6)
    """L2 penalty on the weights."""
    test_percent: float = Field(20.0, gt=0, le=50)
    """Share of the measured archs that are held out to evaluate the predictor."""


class AccuracyPredictor:
    """An ensemble of networks that predict the accuracy of an arch.

    Each layer has weights `[members, inputs, outputs]` and biases `[members, 1, outputs]`. `center` and `scale` are the
    mean and the standard deviation of the accuracies that the ensemble was fitted to, in percent.
    """

    def __init__(self, space: SearchSpace, layers: list[Layer], *, center: float, scale: float) -> None:
        self.space, self.layers, self.center, self.scale = space, layers, center, scale

    def __repr__(self) -> str:
        members, n_features, _ = self.layers[0][0].shape
        return f"AccuracyPredictor({members} members, {n_features} features, mean {self.center:.4g} %)"

    def __call__(self, rows: Rows) -> Floats:
        """Predict the accuracies `[n]` of rows `[n, n_choices]` in percent; `predict` adds intervals."""
        return self.predict(rows).mean

    def predict(self, rows: Rows) -> Prediction:
        """Predict the accuracies of rows `[n, n_choices]` in percent.

        Intervals are those of a normal distribution with the standard deviation of the ensemble.

        Raises:
            SpaceError: the rows do not belong to the search space.
        """
        x = self.space.one_hot(rows)[None]  # [1, n, features]
        *hidden, (last_weights, last_biases) = self.layers
        for weights, biases in hidden:
            x = np.maximum(x @ weights + biases, 0)  # [members, n, outputs]
        x = x @ last_weights + last_biases
        top1_percent = self.center + self.scale * x[..., 0].astype(np.float64)  # [members, n]
        mean, half_width = top1_percent.mean(axis=0), norm.ppf((1 + INTERVAL) / 2) * top1_percent.std(axis=0)
        return Prediction(mean, mean - half_width, mean + half_width)

    @classmethod
    def fit(
        cls, space: SearchSpace, rows: Rows, top1_percent: Floats, *, config: PredictorConfig, seed: int
    ) -> "AccuracyPredictor":
        """Fit an ensemble to the accuracies in percent `[n]` of rows `[n, n_choices]`.

        The seed determines the initial weights and the archs that each member is fitted to.

        Raises:
            PredictorError: there are fewer than 2 archs, or not one finite accuracy for each.
            SpaceError: the rows do not belong to the search space.
        """
        if len(rows) < 2 or top1_percent.shape != (len(rows),) or not np.isfinite(top1_percent).all():
            raise PredictorError(
                f"a predictor needs 2 or more archs with a finite accuracy for each, not {len(rows)} archs with "
                f"{np.isfinite(top1_percent).sum()} finite accuracies; measure them again"
            )
        center, scale = float(top1_percent.mean()), float(top1_percent.std()) or 1.0
        features, targets = space.one_hot(rows).astype(np.float64), (top1_percent - center) / scale
        rng, shape = np.random.default_rng(seed), (config.hidden, config.hidden)
        members = []
        with threadpool_limits(1, user_api="blas"), warnings.catch_warnings():  # several threads are slower
            warnings.simplefilter("ignore", ConvergenceWarning)  # to stop before convergence is a regularization
            for member in range(config.members):
                drawn = rng.permutation(len(rows))[: max(2, round(0.9 * len(rows)))]
                settings = {"alpha": config.alpha, "solver": "lbfgs", "max_iter": 300, "random_state": seed + member}
                network = MLPRegressor(hidden_layer_sizes=shape, **settings)
                members.append(network.fit(features[drawn], targets[drawn]))
        layers = [
            (
                np.stack([member.coefs_[i] for member in members]).astype(np.float32),
                np.stack([member.intercepts_[i][None] for member in members]).astype(np.float32),
            )
            for i in range(len(members[0].coefs_))
        ]
        return cls(space, layers, center=center, scale=scale)

    def save(self, path: Path) -> None:
        """Write the predictor as a safetensors file, whole or not at all."""
        arrays = {"center": np.array([self.center]), "scale": np.array([self.scale])}
        for i, (weights, biases) in enumerate(self.layers):
            arrays |= {f"layers.{i}.weights": weights, f"layers.{i}.biases": biases}
        tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
        write_tensors(path, tensors, {"choices": repr(self.space.choices)})

    @classmethod
    def load(cls, path: Path, space: SearchSpace) -> "AccuracyPredictor":
        """Read a predictor that `save` wrote.

        Raises:
            CheckpointError: the file is missing or truncated, or the predictor was fitted on another search space.
        """
        tensors, metadata = read_tensors(path)
        arrays = {name: tensor.numpy() for name, tensor in tensors.items()}
        try:
            layers = [(arrays[f"layers.{i}.weights"], arrays[f"layers.{i}.biases"]) for i in range(3)]
            center, scale = float(arrays["center"][0]), float(arrays["scale"][0])
        except KeyError as error:
            raise CheckpointError(f"{path} is not a predictor, it lacks {error}; fit it again") from error
        if metadata.get("choices") != repr(space.choices):
            raise CheckpointError(f"{path} was fitted on another search space; fit it again")
        return cls(space, layers, center=center, scale=scale)


@dataclass(frozen=True)
class PredictorMetrics:
    """How well a predictor fitted to `n_fit` archs predicts the top-1 accuracies in percent of `n_test` others.

    Attributes:
        kendall_tau: rank correlation of predictions and measurements, -1 to 1; 0 if there is nothing to rank.
        rmse_percent: root mean square error of predictions against measurements.
    """

    kendall_tau: float
    rmse_percent: float
    n_fit: int
    n_test: int
    measured_percent: tuple[float, ...]
    predicted_percent: tuple[float, ...]


def evaluate(
    space: SearchSpace,
    rows: Rows,
    top1_percent: Floats,
    *,
    loss: Floats,
    n_images: int,
    config: PredictorConfig,
    seed: int,
) -> PredictorMetrics:
    """Fit a predictor to the denoised accuracies of some archs, and evaluate it on the measured ones of the others.

    `rows` `[n, n_choices]` are the measured archs; see `denoised_percent` for their `top1_percent`, `loss` and
    `n_images`. The seed is that of the predictor and of which archs are held out.
    """
    fit, test = train_test_split(np.arange(len(rows)), test_size=config.test_percent / 100, random_state=seed)
    targets = denoised_percent(top1_percent[fit], loss[fit], n_images)
    predictor = AccuracyPredictor.fit(space, rows[fit], targets, config=config, seed=seed)
    measured, predicted = top1_percent[test], predictor(rows[test])
    return PredictorMetrics(
        kendall_tau=float(np.nan_to_num(kendalltau(predicted, measured).statistic)) if len(test) > 1 else 0.0,
        rmse_percent=float(np.sqrt(np.mean((predicted - measured) ** 2))),
        n_fit=len(fit),
        n_test=len(test),
        measured_percent=tuple(measured.tolist()),
        predicted_percent=tuple(predicted.tolist()),
    )
