"""How much accuracy archs lose by a precision, learned from those whose drop was measured."""

import warnings

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, DotProduct, WhiteKernel
from threadpoolctl import threadpool_limits

from ofa.core.errors import PredictorError
from ofa.space.arch import Rows
from ofa.space.search_space import SearchSpace

Floats = NDArray[np.float64]

_LEAST = 4
"""Archs below which the mean drop is all that is learned."""


class PrecisionDrop:
    """Predictor of the accuracy that an arch loses by a precision, in points: a Gaussian process over its choices.

    Quantization costs some archs much more than others, and neither its mean nor which choices matter is known
    beforehand. The process learns both, as a sum over choices and their interactions; where nothing similar was
    measured, it returns to the mean. At the measured
    archs it shrinks what was measured by the noise that it estimates, so a lucky arch does not mislead a search.

    Args:
        space: search space of the archs.
        rows: measured archs `[n, n_choices]`, at least one.
        drop_percent: accuracy in float32 less that in the precision, on the same images, `[n]`.

    Raises:
        PredictorError: there is not one finite drop for each of at least one arch.
    """

    def __init__(self, space: SearchSpace, rows: Rows, drop_percent: Floats) -> None:
        if not len(rows) or drop_percent.shape != (len(rows),) or not np.isfinite(drop_percent).all():
            raise PredictorError(
                f"{len(rows)} archs and {np.isfinite(drop_percent).sum()} finite accuracy drops; measure one for each"
            )
        self._space, self._mean = space, float(drop_percent.mean())
        self._scale, self._process = float(drop_percent.std()), None
        if len(rows) >= _LEAST and self._scale > 0:
            additive = ConstantKernel(0.1, (1e-4, 1.0)) * DotProduct(1.0, "fixed")
            joint = ConstantKernel(0.1, (1e-4, 1.0)) * RBF(3.0, (1.0, 30.0))
            self._process = GaussianProcessRegressor(additive + joint + WhiteKernel(0.5, (1e-3, 2.0)), random_state=0)
            with threadpool_limits(1, user_api="blas"), warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)  # the bounds are meant to be reached
                self._process.fit(self._features(rows), (drop_percent - self._mean) / self._scale)

    def __call__(self, rows: Rows) -> Floats:
        """Return the accuracy that archs `[n, n_choices]` lose, in points `[n]`; negative if they gain."""
        if self._process is None:
            return np.full(len(rows), self._mean)
        standardized: Floats = self._process.predict(self._features(rows))
        return self._mean + self._scale * standardized

    def _features(self, rows: Rows) -> Floats:
        return self._space.one_hot(rows).astype(np.float64)
