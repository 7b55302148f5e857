"""The one form of predictions, of accuracies and of latencies."""

from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

INTERVAL = 0.9
"""Share of archs whose true value lies between `low` and `high`."""
HALF_WIDTH_STDS = NormalDist().inv_cdf((1 + INTERVAL) / 2)
"""Standard deviations of a normal distribution on either side of its mean between which that share lies."""


class Prediction(NamedTuple):
    """Predicted values of `n` archs and the intervals that hold `INTERVAL` of such archs, in the predicted unit.

    Attributes:
        mean: expected values `[n]`.
        low: lower ends of the intervals `[n]`.
        high: upper ends of the intervals `[n]`; infinite where the error is not known.
    """

    mean: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]

    @property
    def std(self) -> NDArray[np.float64]:
        """Standard deviations `[n]` of normal distributions with intervals of these widths."""
        return (self.high - self.low) / (2 * HALF_WIDTH_STDS)
