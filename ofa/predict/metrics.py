"""Metrics of an accuracy predictor on held-out archs."""

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

    Args:
        space: the search space of the archs.
        rows: measured archs `[n, n_choices]`.
        top1_percent: their accuracies `[n]`; see `denoised_percent` for `loss` and `n_images`.
        loss: their mean cross-entropies `[n]`.
        n_images: the number of images of each measurement.
        config: the settings of the predictor, and the share of held-out archs.
        seed: the seed of the predictor and of which archs are held out.
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
