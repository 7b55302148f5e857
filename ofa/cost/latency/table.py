"""Latency tables: measurements of a family on one device, and a model that predicts every arch from them."""

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import spearmanr

from ofa.core.errors import TableError
from ofa.core.prediction import Prediction
from ofa.cost.latency.block_model import BlockModel, BlockSum
from ofa.cost.latency.gaussian_process import GaussianProcess
from ofa.cost.latency.measurements import Measurements, to_arrays
from ofa.cost.latency.transfer import FittedTransfer, Networks, Transfer
from ofa.space.arch import Rows


@dataclass(frozen=True)
class LatencyMetrics:
    """Accuracy of predicted latencies of `n` networks; errors are absolute and relative to the measurement.

    `within_5_percent` is the share of errors of at most 5%, in percent, and `in_interval_percent` that of measurements
    inside their interval, NaN without intervals. The rank correlation is NaN where all latencies are equal.
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


class LatencyTable(Measurements):
    """Predictor of the latency of archs of one run of `batch` images, in ms; see `Measurements` for its fields.

    A regression turns the timings of blocks into the latency of an arch; without measured networks it is their plain
    sum. Without blocks, a Gaussian process over the choices predicts it, or one over devices and archs if there are
    other devices. The model is fitted when first needed.
    """

    name, unit = "latency_ms", "ms"

    @property
    def batch(self) -> int:
        """Number of images in one run, so `1000 * batch / latency_ms` is images per second; 1 if the table has none."""
        return int(self.device.get("batch", 1))

    @cached_property
    def _model(self) -> BlockModel | BlockSum | GaussianProcess | FittedTransfer:
        if self.others:
            return self._transferred()
        if not self.rows:
            return GaussianProcess(self)
        return BlockModel(self) if self.networks else BlockSum(self)

    def _transferred(self) -> FittedTransfer:
        if self.family.space.choices != self.measured.space.choices:
            raise TableError(f"{self!r} knows no other resolutions; profile the device for this family")
        return Transfer.of(self.measured, self.others).fit(Networks(*to_arrays(self.networks, self.measured)))

    def __call__(self, rows: Rows) -> NDArray[np.float64]:
        """Return the latency `[n]` of rows `[n, n_choices]`: the mean of `predict`, with its errors, in less time."""
        self.family.space.check_rows(rows)
        return self._model(rows)

    def predict(self, rows: Rows) -> Prediction:
        """Return the latency and its interval for rows `[n, n_choices]`.

        Intervals are infinite if no network was measured. At a resolution that was not measured, the timings of blocks
        are interpolated, intervals are twice as wide, and there is a warning.

        Raises:
            SpaceError: the rows are not of the family's search space.
            TableError: a block of an arch was not measured.
        """
        self.family.space.check_rows(rows)
        return self._model.predict(rows)

    def evaluate(self) -> LatencyMetrics:
        """Compare predictions with the measured checks, to which the model was not fitted.

        Raises:
            TableError: the table has no checks.
        """
        if not self.checks:
            raise TableError(f"{self!r} has no checks to evaluate; profile the device with some")
        table = self if self.family is self.measured else replace(self, family=self.measured)
        rows, measured_ms = to_arrays(self.checks, self.measured)
        return latency_metrics(measured_ms, *table.predict(rows))
