"""The accuracy predictor: a small ensemble of multi-layer perceptrons over one-hot archs (arXiv 1908.09791, 3.4)."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def denoised_percent(top1_percent: Floats, loss: Floats, n_images: int) -> Floats:
    """Accuracies with less of the noise of few images, by the losses on the same images.

    A loss also counts how sure each answer is, so it needs fewer images to tell networks apart. Accuracies are drawn to
    a line through the losses, as far as they scatter around it no more than that noise does: where losses say little
    about accuracies, these stay as they are.

    Args:
        top1_percent: of each arch, measured `[n]`.
        loss: mean cross-entropy of each on the same images, in nats `[n]`.
        n_images: how many images.
    """
    spread = loss - loss.mean()
    slope = float(spread @ top1_percent) / max(float(spread @ spread), 1e-12)
    line = top1_percent.mean() + slope * spread
    return estimate_percent(top1_percent, line, n_images, model_rmse_percent(top1_percent, line, n_images))


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
