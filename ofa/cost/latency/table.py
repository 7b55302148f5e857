"""Latency tables: measurements of a family on one device, and a model that predicts every arch from them."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from ofa.core.errors import TableError
from ofa.core.prediction import Prediction
from ofa.cost.latency.block_model import BlockModel, BlockSum
from ofa.cost.latency.gaussian_process import GaussianProcess
from ofa.cost.latency.measurements import Measurements, to_arrays
from ofa.cost.latency.metrics import LatencyMetrics, latency_metrics
from ofa.space.arch import Rows


class LatencyTable(Measurements):
    """Predictor of the latency of archs in milliseconds, at batch 1; see `Measurements` for its fields.

    A regression turns the timings of blocks into the latency of an arch; without measured networks it is their plain
    sum, and for a family without blocks a Gaussian process predicts it. The model is fitted when first needed.
    """

    name, unit = "latency_ms", "ms"

    @cached_property
    def _model(self) -> BlockModel | BlockSum | GaussianProcess:
        if not self.rows:
            return GaussianProcess(self)
        return BlockModel(self) if self.networks else BlockSum(self)

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
