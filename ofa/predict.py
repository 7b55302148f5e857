"""The accuracy predictor: a small ensemble of multi-layer perceptrons over one-hot archs (arXiv 1908.09791, 3.4)."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from scipy.stats import kendalltau
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPRegressor
from threadpoolctl import threadpool_limits

from ofa.config import Config
from ofa.errors import CheckpointError
from ofa.space import Rows, SearchSpace
from ofa.tensors import read_tensors, write_tensors

Floats = NDArray[np.float64]
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


@dataclass(frozen=True)
class Fit:
    """How good a predictor is on archs that it was not fitted on."""

    kendall_tau: float
    rmse_percent: float
    n_fit: int
    n_test: int
    measured_percent: tuple[float, ...]
    predicted_percent: tuple[float, ...]


class AccuracyPredictor:
    """Predicts the accuracy of archs from a few measured ones.

    Args:
        space: the archs' space.
        layers: for each layer, weights `[members, inputs, outputs]` and biases `[members, 1, outputs]`.
        centre: mean of the accuracies it was fitted on, in percent.
        scale: their standard deviation, in percent.
    """

    def __init__(self, space: SearchSpace, layers: list[Layer], centre: float, scale: float) -> None:
        self.space, self.layers, self.centre, self.scale = space, layers, centre, scale

    def __call__(self, rows: Rows) -> tuple[Floats, Floats]:
        """Mean and standard deviation over the ensemble, in percent, each `[n]`, of rows `[n, n_choices]`."""
        x = self.space.one_hot(rows)[None]  # [1, n, features]
        *hidden, (last_weights, last_biases) = self.layers
        for weights, biases in hidden:
            x = np.maximum(x @ weights + biases, 0)  # [members, n, outputs]
        x = x @ last_weights + last_biases
        accuracy = self.centre + self.scale * x[..., 0].astype(np.float64)
        return accuracy.mean(axis=0), accuracy.std(axis=0)

    @classmethod
    def fit(
        cls, space: SearchSpace, rows: Rows, accuracy_percent: Floats, config: PredictorConfig, seed: int
    ) -> AccuracyPredictor:
        """Fits an ensemble on archs `[n, n_choices]` and their measured accuracies `[n]`."""
        centre, scale = float(accuracy_percent.mean()), float(accuracy_percent.std()) or 1.0
        features, targets = space.one_hot(rows).astype(np.float64), (accuracy_percent - centre) / scale
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
            # the regularisation.
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
        return cls(space, layers, centre, scale)

    def save(self, path: Path) -> None:
        """Writes the predictor as safetensors, whole or not at all."""
        arrays = {"centre": np.array([self.centre]), "scale": np.array([self.scale])}
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
            centre, scale = float(arrays["centre"][0]), float(arrays["scale"][0])
        except KeyError as error:
            raise CheckpointError(f"{path} is not a predictor, it lacks {error}; fit it again") from error
        if metadata.get("choices") != repr(space.choices):
            raise CheckpointError(f"{path} was fitted on another search space; fit it again")
        return cls(space, layers, centre, scale)


def fit_and_judge(
    space: SearchSpace,
    rows: Rows,
    accuracy_percent: Floats,
    loss: Floats,
    n_images: int,
    config: PredictorConfig,
    seed: int,
) -> tuple[AccuracyPredictor, Fit]:
    """Judges a predictor on archs kept apart, by their accuracies as measured, then fits the one to use on all archs.

    Args:
        space: the archs' space.
        rows: archs `[n, n_choices]`.
        accuracy_percent: of each, measured on the same images `[n]`.
        loss: of each on those images, in nats `[n]`; see `denoised_percent`.
        n_images: how many images.
        config: of the predictor.
        seed: of its first weights, and of which archs are kept apart.
    """
    fitted, kept = train_test_split(np.arange(len(rows)), test_size=config.test_percent / 100, random_state=seed)
    targets = denoised_percent(accuracy_percent[fitted], loss[fitted], n_images)
    predicted, _ = AccuracyPredictor.fit(space, rows[fitted], targets, config, seed)(rows[kept])
    measured = accuracy_percent[kept]
    fit = Fit(
        kendall_tau=float(np.nan_to_num(kendalltau(predicted, measured).statistic)),  # constant values rank nothing
        rmse_percent=float(np.sqrt(np.mean((predicted - measured) ** 2))),
        n_fit=len(fitted),
        n_test=len(kept),
        measured_percent=tuple(measured.tolist()),
        predicted_percent=tuple(predicted.tolist()),
    )
    targets = denoised_percent(accuracy_percent, loss, n_images)
    return AccuracyPredictor.fit(space, rows, targets, config, seed), fit


def denoised_percent(accuracy_percent: Floats, loss: Floats, n_images: int) -> Floats:
    """Accuracies with less of the noise of few images, by the losses on the same images.

    A loss also counts how sure each answer is, so it needs fewer images to tell networks apart. Accuracies are drawn to
    a line through the losses, as far as they scatter around it no more than that noise does: where losses say little
    about accuracies, these stay as they are.

    Args:
        accuracy_percent: of each arch, measured `[n]`.
        loss: mean cross-entropy of each on the same images, in nats `[n]`.
        n_images: how many images.
    """
    spread = loss - loss.mean()
    slope = float(spread @ accuracy_percent) / max(float(spread @ spread), 1e-12)
    line = accuracy_percent.mean() + slope * spread
    return estimate_percent(accuracy_percent, line, n_images, model_rmse_percent(accuracy_percent, line, n_images))


def estimate_percent(measured: Floats, predicted: Floats, n_images: int, model_rmse_percent: float) -> Floats:
    """The best guess at true accuracies: measurement and prediction, each weighted by the inverse of its variance.

    Picking the best of many archs by an accuracy that was measured on few images picks the lucky ones; the
    prediction, fitted to all of them, is not misled by one arch's luck.

    Args:
        measured: accuracy on `n_images` images, in percent, `[n]`.
        predicted: by the predictor, in percent, `[n]`.
        n_images: of each measurement.
        model_rmse_percent: of the predictor against true accuracies; see `model_rmse_percent`.
    """
    of_predicting, of_measuring = model_rmse_percent**2, _measuring_variance(predicted, n_images)
    estimate: Floats = predicted + of_predicting / (of_predicting + of_measuring) * (measured - predicted)
    return estimate


def model_rmse_percent(measured: Floats, predicted: Floats, n_images: int) -> float:
    """How far predictions are from true accuracies: from measurements on `n_images` images, less their own noise."""
    noise = float(_measuring_variance(predicted, n_images).mean())
    squared = float(np.mean((measured - predicted) ** 2))
    return math.sqrt(max(squared - noise, 0.1 * noise))


def _measuring_variance(predicted: Floats, n_images: int) -> Floats:
    """Binomial variance, taken at the prediction: at a lucky measurement it would come out too small."""
    share = (np.clip(predicted / 100, 0, 1) * n_images + 1) / (n_images + 2)  # never exactly 0 or 1
    variance: Floats = 1e4 * share * (1 - share) / n_images
    return variance
