"""Estimates of true accuracies from accuracies measured on few images."""

import math

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def denoised_percent(top1_percent: Floats, loss: Floats, n_images: int) -> Floats:
    """Return accuracies `[n]` that are shrunk towards their linear fit on the losses.

    A loss also reflects how confident each answer is, so it takes fewer images to tell networks apart by it. The more
    of the residuals the images' noise explains, the stronger the shrinkage: if losses hardly explain accuracies, these
    stay as they are. `loss` `[n]` holds the mean cross-entropies in nats on the same `n_images` images.
    """
    centered_loss = loss - loss.mean()
    slope = float(centered_loss @ top1_percent) / max(float(centered_loss @ centered_loss), 1e-12)
    fitted_percent = top1_percent.mean() + slope * centered_loss
    rmse_percent = model_rmse_percent(top1_percent, fitted_percent, n_images)
    return estimate_percent(top1_percent, fitted_percent, n_images=n_images, model_rmse_percent=rmse_percent)


def estimate_percent(
    measured_percent: Floats, predicted_percent: Floats, *, n_images: int, model_rmse_percent: float
) -> Floats:
    """Return the mean `[n]` of measurement and prediction, weighted by their inverse variances.

    The best of many accuracies that were measured on few images are the luckiest ones. Predictions are fitted to all
    of them, so the luck of one arch does not mislead them. See `model_rmse_percent` for the error of the predictions.
    """
    prediction_variance = model_rmse_percent**2
    weight = prediction_variance / (prediction_variance + noise_variance(predicted_percent, n_images))
    return predicted_percent + weight * (measured_percent - predicted_percent)


def model_rmse_percent(measured_percent: Floats, predicted_percent: Floats, n_images: int) -> float:
    """Return the root mean square error of predictions `[n]` against true accuracies, in percent.

    It is the error against measurements on `n_images` images, less their variance.
    """
    noise = float(noise_variance(predicted_percent, n_images).mean())
    squared_error = float(np.mean((measured_percent - predicted_percent) ** 2))
    return math.sqrt(max(squared_error - noise, 0.1 * noise))


def noise_variance(predicted_percent: Floats, n_images: int) -> Floats:
    """Return the binomial variances of measurements, at the predictions: at lucky measurements they are too small."""
    share = (np.clip(predicted_percent / 100, 0, 1) * n_images + 1) / (n_images + 2)  # never exactly 0 or 1
    return 1e4 * share * (1 - share) / n_images
