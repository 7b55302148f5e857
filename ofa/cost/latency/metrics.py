"""Metrics of predicted latencies."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import spearmanr


@dataclass(frozen=True)
class LatencyMetrics:
    """Accuracy of predicted latencies; errors are absolute and relative to the measurement.

    Attributes:
        mean_error_percent: mean error.
        within_5_percent: share of errors of at most 5%, in percent.
        within_10_percent: share of errors of at most 10%, in percent.
        spearman: rank correlation; NaN where all latencies are equal.
        n: number of networks.
        in_interval_percent: share of measurements inside their interval, in percent; NaN without intervals.
    """

    mean_error_percent: float
    within_5_percent: float
    within_10_percent: float
    spearman: float
    n: int
    in_interval_percent: float


def latency_metrics(
    measured: ArrayLike, predicted: ArrayLike, low: ArrayLike = np.nan, high: ArrayLike = np.nan
) -> LatencyMetrics:
    """Compare measured latencies `[n]` with predicted ones `[n]` and, if given, the ends of their intervals `[n]`."""
    measured, predicted = np.asarray(measured, float), np.asarray(predicted, float)
    errors_percent = 100 * np.abs(predicted / measured - 1)
    varied = len(set(measured)) > 1 and len(set(predicted)) > 1
    inside = np.where(np.isnan(low), np.nan, (low <= measured) & (measured <= high))
    return LatencyMetrics(
        mean_error_percent=float(errors_percent.mean()),
        within_5_percent=float(100 * np.mean(errors_percent <= 5)),
        within_10_percent=float(100 * np.mean(errors_percent <= 10)),
        spearman=float(spearmanr(measured, predicted).statistic) if varied else float("nan"),
        n=len(measured),
        in_interval_percent=float(100 * np.mean(inside)),
    )
