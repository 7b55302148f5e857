"""How well a predictor predicts accuracies that it has not seen."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import kendalltau, spearmanr

from ofa.core.prediction import HALF_WIDTH_STDS, Prediction

Floats = NDArray[np.float64]

TOP = 10
"""Predicted best archs whose best one counts for the regret: a search measures several, too."""


@dataclass(frozen=True)
class PredictorMetrics:
    """How predictions of archs compare with their measured top-1 accuracies in percent.

    Attributes:
        kendall_tau: share of pairs in the right order less that in the wrong one, -1 to 1; 0 if nothing is to rank.
        spearman: correlation of ranks, -1 to 1; 0 if nothing is to rank.
        rmse_percent: root mean square error in points.
        regret_percent: the best accuracy of all archs less the best of the `TOP` that are predicted best, in points.
        coverage_percent: share of archs within their intervals, which are made to hold 90 %.
        n_archs: number of archs.
        measured_percent: the measured accuracies.
        predicted_percent: the predicted ones.
    """

    kendall_tau: float
    spearman: float
    rmse_percent: float
    regret_percent: float
    coverage_percent: float
    n_archs: int
    measured_percent: tuple[float, ...]
    predicted_percent: tuple[float, ...]


def judge(prediction: Prediction, measured_percent: Floats, noise_percent: Floats | float = 0.0) -> PredictorMetrics:
    """Compare predictions of archs with their measured accuracies in percent `[n]`.

    Either of archs apart from those that the predictor was fitted to, or `Predictor.cross_validated`. `noise_percent`
    is the standard deviation of the errors of measurement `[n]`, if the intervals are of true accuracies; without it a
    measured accuracy may lie outside only because few images measured it.
    """
    predicted, noise = prediction.mean, HALF_WIDTH_STDS * noise_percent
    best = measured_percent[np.argsort(-predicted, kind="stable")[:TOP]].max()
    high = predicted + np.hypot(prediction.high - predicted, noise)
    low = predicted - np.hypot(predicted - prediction.low, noise)
    inside = (low <= measured_percent) & (measured_percent <= high)
    return PredictorMetrics(
        kendall_tau=rank_correlation(predicted, measured_percent),
        spearman=rank_correlation(predicted, measured_percent, spearmanr),
        rmse_percent=float(np.sqrt(np.mean((predicted - measured_percent) ** 2))),
        regret_percent=float(measured_percent.max() - best),
        coverage_percent=100 * float(inside.mean()),
        n_archs=len(measured_percent),
        measured_percent=tuple(measured_percent.tolist()),
        predicted_percent=tuple(predicted.tolist()),
    )


def rank_correlation(predicted: Floats, measured: Floats, of: Callable[[Floats, Floats], Any] = kendalltau) -> float:
    """Return Kendall's tau, or another correlation of scipy, -1 to 1; 0 if there is nothing to rank."""
    if len(np.unique(predicted)) < 2 or len(np.unique(measured)) < 2:
        return 0.0
    return float(of(predicted, measured).statistic)
