"""Latency of whole networks by a Gaussian process over their choices, for families that are not made of blocks."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm
from sklearn.exceptions import ConvergenceWarning
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel
from threadpoolctl import threadpool_limits

from ofa.cost.latency.regression import INTERVAL
from ofa.space.arch import Rows
from ofa.space.search_space import SearchSpace

Floats = NDArray[np.float64]


_AT_ONCE = 20_000


@dataclass(frozen=True)
class NetworkProcess:
    """Latency of an arch from that of measured networks like it.

    Attributes:
        space: of the archs.
        process: fitted to logarithms, so that errors are relative; each choice has a length scale of its own.
    """

    space: SearchSpace
    process: GaussianProcessRegressor

    @classmethod
    def fit(cls, space: SearchSpace, rows: Rows, latency_ms: Floats) -> NetworkProcess:
        """Fits to measured networks: `rows` `[n, n_choices]`, `latency_ms` `[n]`."""
        features = _features(space, rows)
        smooth = ConstantKernel(1.0, (1e-3, 1e3)) * RBF(np.ones(features.shape[1]), (1e-1, 1e3))
        process = GaussianProcessRegressor(smooth + WhiteKernel(1e-3, (1e-6, 1e-1)), normalize_y=True)
        with threadpool_limits(1, user_api="blas"), warnings.catch_warnings():  # small matrices: slower on several
            warnings.simplefilter("ignore", ConvergenceWarning)  # a scale at its bound: the choice hardly matters
            return cls(space, process.fit(features, np.log(latency_ms)))

    def predict(self, rows: Rows) -> tuple[Floats, Floats, Floats]:
        """Latency `[n]` of rows `[n, n_choices]`, and the ends of the interval that holds `INTERVAL` of networks."""
        found = [np.zeros((2, 0))]
        with threadpool_limits(1, user_api="blas"):
            for start in range(0, len(rows), _AT_ONCE):
                features = _features(self.space, rows[start : start + _AT_ONCE])
                found.append(np.stack(self.process.predict(features, return_std=True)))
        mean, spread = np.concatenate(found, axis=1)
        half = norm.ppf((1 + INTERVAL) / 2) * spread
        return np.exp(mean), np.exp(mean - half), np.exp(mean + half)


def _features(space: SearchSpace, rows: Rows) -> Floats:
    """A number for each choice of several values, `[n, choices]`: 0 to 1 by the value's logarithm; -1 if inactive."""
    columns, active = [], space.active(rows)
    for column, choice in enumerate(space.choices):
        if len(choice.values) > 1:
            values = np.array(choice.values, dtype=float)
            scale = np.log(values) if values[0] > 0 else values
            scaled = (scale - scale[0]) / (scale[-1] - scale[0])
            columns.append(np.where(active[:, column], scaled[rows[:, column]], -1.0))
    return np.stack(columns, axis=1)
