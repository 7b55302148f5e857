"""How well predictions agree with measurements of the same things."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import spearmanr


@dataclass(frozen=True)
class Agreement:
    """Errors are relative to the measurement; the rank correlation is NaN where all are alike."""

    mean_error_percent: float
    within_5_percent: float
    within_10_percent: float
    spearman: float
    n: int


def agreement(measured: ArrayLike, predicted: ArrayLike) -> Agreement:
    """Compares positive measurements `[n]` with their predictions `[n]`."""
    x, y = np.asarray(measured, float), np.asarray(predicted, float)
    errors = 100 * np.abs(y / x - 1)
    ranked = len(set(x)) > 1 and len(set(y)) > 1
    spearman = float(spearmanr(x, y).statistic) if ranked else float("nan")
    return Agreement(
        float(errors.mean()),
        float(100 * np.mean(errors <= 5)),
        float(100 * np.mean(errors <= 10)),
        spearman,
        len(x),
    )
