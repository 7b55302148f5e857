"""The accuracy predictor: a small ensemble of multi-layer perceptrons over one-hot archs (arXiv 1908.09791, 3.4)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.stats import kendalltau
from sklearn.model_selection import train_test_split

from ofa.predict.denoise import Floats, denoised_percent
from ofa.predict.mlp import AccuracyPredictor, PredictorConfig
from ofa.space.arch import Rows
from ofa.space.search_space import SearchSpace


@dataclass(frozen=True)
class PredictorMetrics:
    """How good a predictor is on archs that it was not fitted on."""

    kendall_tau: float
    rmse_percent: float
    n_fit: int
    n_test: int
    measured_percent: tuple[float, ...]
    predicted_percent: tuple[float, ...]


def fit_and_evaluate(
    space: SearchSpace,
    rows: Rows,
    top1_percent: Floats,
    loss: Floats,
    n_images: int,
    config: PredictorConfig,
    seed: int,
) -> tuple[AccuracyPredictor, PredictorMetrics]:
    """Judges a predictor on archs kept apart, by their accuracies as measured, then fits the one to use on all archs.

    Args:
        space: the archs' space.
        rows: archs `[n, n_choices]`.
        top1_percent: of each, measured on the same images `[n]`.
        loss: of each on those images, in nats `[n]`; see `denoised_percent`.
        n_images: how many images.
        config: of the predictor.
        seed: of its first weights, and of which archs are kept apart.
    """
    fitted, kept = train_test_split(np.arange(len(rows)), test_size=config.test_percent / 100, random_state=seed)
    targets = denoised_percent(top1_percent[fitted], loss[fitted], n_images)
    predicted, _ = AccuracyPredictor.fit(space, rows[fitted], targets, config, seed)(rows[kept])
    measured = top1_percent[kept]
    fit = PredictorMetrics(
        kendall_tau=float(np.nan_to_num(kendalltau(predicted, measured).statistic)),  # constant values rank nothing
        rmse_percent=float(np.sqrt(np.mean((predicted - measured) ** 2))),
        n_fit=len(fitted),
        n_test=len(kept),
        measured_percent=tuple(measured.tolist()),
        predicted_percent=tuple(predicted.tolist()),
    )
    targets = denoised_percent(top1_percent, loss, n_images)
    return AccuracyPredictor.fit(space, rows, targets, config, seed), fit
