"""Gaussian processes over a few numbers, by scikit-learn."""

import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, DotProduct, Kernel, WhiteKernel
from threadpoolctl import threadpool_limits

Floats = NDArray[np.float64]


def smooth_and_linear(n_inputs: int, noise: float, most_noise: float) -> Kernel:
    """Return a kernel with a scale for each of some standardized inputs, a linear part, and noise of some variance.

    `noise` is where fitting starts, `most_noise` where it ends.
    """
    smooth = ConstantKernel(1.0, (1e-3, 1e3)) * RBF(np.full(n_inputs, 3.0), (0.3, 1e3))
    linear = ConstantKernel(1.0, (1e-3, 1e3)) * DotProduct(1.0, (1e-2, 1e2))
    return smooth + linear + WhiteKernel(noise, (1e-6, most_noise))


def fit(kernel: Kernel, inputs: Floats, targets: Floats, **options: Any) -> GaussianProcessRegressor:
    """Fit a Gaussian process to targets `[n]` of inputs `[n, n_inputs]`; options are those of scikit-learn's class."""
    with threadpool_limits(1, user_api="blas"), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a scale at its bound: the input hardly matters
        return GaussianProcessRegressor(kernel, **options).fit(inputs, targets)
