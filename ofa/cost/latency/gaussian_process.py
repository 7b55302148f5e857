"""Latency of families without blocks: a Gaussian process over their choices, fitted to whole networks."""

import warnings

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel
from threadpoolctl import threadpool_limits

from ofa.core.prediction import HALF_WIDTH_STDS, Prediction
from ofa.cost.latency.measurements import Measurements, to_arrays
from ofa.space.arch import Rows
from ofa.space.search_space import SearchSpace

Floats = NDArray[np.float64]

_CHUNK = 20_000  # archs, times the measured networks


class GaussianProcess:
    """A Gaussian process of the log latency, so that errors are relative; each choice has its own length scale."""

    def __init__(self, measurements: Measurements) -> None:
        self._measured, self._space = measurements.measured.space, measurements.family.space
        rows, latency_ms = to_arrays(measurements.networks, measurements.measured)
        features = self._features(self._measured, rows)
        smooth = ConstantKernel(1.0, (1e-3, 1e3)) * RBF(np.ones(features.shape[1]), (1e-1, 1e3))
        regressor = GaussianProcessRegressor(smooth + WhiteKernel(1e-3, (1e-6, 1e-1)), normalize_y=True)
        with threadpool_limits(1, user_api="blas"), warnings.catch_warnings():  # small matrices: slower on several
            warnings.simplefilter("ignore", ConvergenceWarning)  # a scale at its bound: the choice hardly matters
            self._regressor = regressor.fit(features, np.log(latency_ms))

    def __call__(self, rows: Rows) -> Floats:
        """Return the latency in ms `[n]` of rows `[n, n_choices]`."""
        return self.predict(rows).mean

    def predict(self, rows: Rows) -> Prediction:
        """Return the latency in ms and its interval for rows `[n, n_choices]`."""
        moments = [np.zeros((2, 0))]
        with threadpool_limits(1, user_api="blas"):
            for start in range(0, len(rows), _CHUNK):
                features = self._features(self._space, rows[start : start + _CHUNK])
                moments.append(np.stack(self._regressor.predict(features, return_std=True)))
        mean, deviation = np.concatenate(moments, axis=1)
        half_width = HALF_WIDTH_STDS * deviation
        return Prediction(np.exp(mean), np.exp(mean - half_width), np.exp(mean + half_width))

    def _features(self, space: SearchSpace, rows: Rows) -> Floats:
        """Return the log value of each choice, scaled to the measured range `[n, n_features]`; -1 where inactive."""
        columns, active = [], space.active(rows)
        for choice in self._measured.choices:
            if len(choice.values) > 1:
                column = space.column(choice.name)
                values = np.array([choice.values[0], choice.values[-1], *space.choices[column].values], dtype=float)
                smallest, largest, *scale = np.log(values) if choice.values[0] > 0 else values
                scaled = (np.array(scale) - smallest) / (largest - smallest)
                columns.append(np.where(active[:, column], scaled[rows[:, column]], -1.0))
        return np.stack(columns, axis=1)
