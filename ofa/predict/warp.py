"""Accuracies on a scale on which predictors learn them best: as they are, or as normal scores of their ranks."""

from typing import Self

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm, rankdata

Floats = NDArray[np.float64]

_END = 0.2
"""Share of the accuracies at each end whose slope goes on beyond the end."""


class Warp:
    """A rising, piecewise linear function from accuracies to scores of mean 0 and standard deviation about 1.

    Args:
        accuracy: the accuracies at its corners `[n]`, rising; at least two.
        score: the scores there `[n]`, rising.
    """

    def __init__(self, accuracy: Floats, score: Floats) -> None:
        self.accuracy, self.score = accuracy, score

    @classmethod
    def linear(cls, accuracy: Floats) -> Self:
        """Keep the distances between accuracies `[n]`."""
        mean, scale = accuracy.mean(), accuracy.std() or 1.0
        return cls(mean + scale * np.array([-1.0, 1.0]), np.array([-1.0, 1.0]))

    @classmethod
    def ranks(cls, accuracy: Floats) -> Self:
        """Give the accuracies `[n]` the scores that as many draws from a normal distribution would have.

        A few archs that failed then do not rule what is learned about all others.
        """
        values, first = np.unique(accuracy, return_index=True)
        if len(values) < 3:
            return cls.linear(accuracy)
        score = norm.ppf((rankdata(accuracy)[first] - 0.5) / len(accuracy))
        n_end = max(1, round(_END * len(values)))
        ends = []
        for outer, inner, sign in ((0, n_end, -1.0), (-1, -1 - n_end, 1.0)):  # go on straight beyond the ends
            slope = (values[outer] - values[inner]) / (score[outer] - score[inner])
            ends.append((values[outer] + sign * 10 * slope, score[outer] + sign * 10))
        (low_value, low_score), (high_value, high_score) = ends
        return cls(np.array([low_value, *values, high_value]), np.array([low_score, *score, high_score]))

    def __call__(self, accuracy: Floats) -> Floats:
        """Return the scores `[n]` of accuracies."""
        return _interpolate(accuracy, self.accuracy, self.score)

    def inverse(self, score: Floats) -> Floats:
        """Return the accuracies `[n]` of scores."""
        return _interpolate(score, self.score, self.accuracy)

    def slope(self, accuracy: Floats) -> Floats:
        """Return the score per unit of accuracy around accuracies `[n]`, over a tenth of the scores."""
        score = self(accuracy)
        difference = self.inverse(score + 0.13) - self.inverse(score - 0.13)
        return 0.26 / np.maximum(difference, 1e-12)


def _interpolate(x: Floats, xs: Floats, ys: Floats) -> Floats:
    """Interpolate, and go on with the outermost slopes beyond the ends."""
    inside: Floats = np.interp(x, xs, ys)
    low = ys[0] + (x - xs[0]) * (ys[1] - ys[0]) / (xs[1] - xs[0])
    high = ys[-1] + (x - xs[-1]) * (ys[-1] - ys[-2]) / (xs[-1] - xs[-2])
    return np.where(x < xs[0], low, np.where(x > xs[-1], high, inside))
