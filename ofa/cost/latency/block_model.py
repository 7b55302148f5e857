"""Latency of families that are made of blocks, from the timings of single blocks and of a few whole networks."""

import warnings
from bisect import bisect
from collections import defaultdict

import numpy as np
from numpy.typing import NDArray

from ofa.core.errors import TableError
from ofa.core.prediction import Prediction
from ofa.cost.block_table import BlockCost, BlockTable, chunks, distinct_blocks
from ofa.cost.counted import params_m
from ofa.cost.latency.inferred_blocks import infer_ms
from ofa.cost.latency.measurements import Measurements, to_arrays
from ofa.cost.latency.regression import BlockRegression, Networks
from ofa.space.arch import Rows
from ofa.supernet.block import Block
from ofa.supernet.family import Family

Floats = NDArray[np.float64]


class InterpolatedLatency(UserWarning):
    """A latency is predicted at a resolution that was not measured."""


class BlockSum:
    """The sum of the overhead and of each block's latency alone, for tables without measured networks."""

    def __init__(self, measurements: Measurements) -> None:
        self._overhead_ms = measurements.overhead.median_ms
        self._blocks_ms = BlockTable(measurements.family, block_latency(measurements))

    def __call__(self, rows: Rows) -> Floats:
        """Return the latency in ms `[n]` of rows `[n, n_choices]`."""
        return self._overhead_ms + self._blocks_ms(rows)

    def predict(self, rows: Rows) -> Prediction:
        """Return the latency in ms with intervals from 0 to infinity, because the error is not known."""
        return Prediction(self(rows), np.zeros(len(rows)), np.full(len(rows), np.inf))


class BlockModel:
    """A regression from the latency of blocks to that of networks, fitted to the measured networks."""

    def __init__(self, measurements: Measurements) -> None:
        self._measurements, measured = measurements, measurements.measured
        cost = block_latency(measurements)
        self._features = _Features(measurements, measurements.family, cost)
        training = self._features if measurements.family is measured else _Features(measurements, measured, cost)
        rows, latency_ms = to_arrays(measurements.networks, measured)
        fastest = measurements.device.get("bursts") == "fastest"
        error = np.median([timing.relative_error(fastest) for timing in measurements.networks.values()])
        noise = float(error) if np.isfinite(error) else 0.0
        self._regression = BlockRegression.fit(training(rows), latency_ms, measurements.overhead.median_ms, noise)

    def __call__(self, rows: Rows) -> Floats:
        """Return the latency in ms `[n]` of rows `[n, n_choices]`, the mean of `predict` in less time."""
        self._find_unmeasured(rows)
        return np.concatenate([np.zeros(0), *(self._regression(self._features(chunk)) for chunk in chunks(rows))])

    def predict(self, rows: Rows) -> Prediction:
        """Return the latency in ms and its interval for rows `[n, n_choices]`."""
        predictions = [np.stack(self._regression.predict(self._features(chunk))) for chunk in chunks(rows)]
        latency_ms, low_ms, high_ms = np.concatenate([np.zeros((3, 0)), *predictions], axis=1)
        unmeasured = self._find_unmeasured(rows)
        for end_ms in (low_ms, high_ms):
            end_ms[unmeasured] = end_ms[unmeasured] ** 2 / latency_ms[unmeasured]
        return Prediction(latency_ms, low_ms, high_ms)

    def _find_unmeasured(self, rows: Rows) -> NDArray[np.bool_]:
        """Return which archs have a resolution that was not measured `[n]`, with a warning if any has."""
        unmeasured: NDArray[np.bool_] = self._features.unmeasured[rows[:, self._features.column]]
        if unmeasured.any():
            warnings.warn(
                f"{self._measurements!r} was measured at {list(self._measurements.measured.resolutions)} pixels, and "
                "latencies at others are interpolated; profile the device for this family to be sure",
                InterpolatedLatency,
                stacklevel=4,
            )
        return unmeasured


class _Features:
    """What the regression sees of the archs of a family."""

    def __init__(self, measurements: Measurements, family: Family, cost: BlockCost) -> None:
        self._space, self.column = family.space, family.space.column("resolution")
        self._blocks_ms, self._params_m = BlockTable(family, cost), params_m(family)
        self._resolutions = np.array(family.resolutions, dtype=float)
        measured = measurements.measured.resolutions
        self._codes = np.array([(*measured, r).index(r) for r in family.resolutions])  # those not measured share one
        self.unmeasured = self._codes == len(measured)

    def __call__(self, rows: Rows) -> Networks:
        codes, resolutions = self._blocks_ms.codes(rows), rows[:, self.column]
        blocks_ms, present = self._blocks_ms.slot_costs(rows, codes)
        params = self._params_m.slot_costs(rows, codes)[0].sum(axis=1)
        n_values = 1 + max(len(choice.values) for choice in self._space.choices)
        choices = np.where(self._space.active(rows), rows + 1, 0) + n_values * self._codes[resolutions][:, None]
        return Networks(blocks_ms, present, self._resolutions[resolutions], params, codes, choices)


def block_latency(measurements: Measurements) -> BlockCost:
    """Return the cost of a block in ms: its latency alone less the overhead of a run; linear in the number of pixels.

    Blocks of the measured family for which there was no time are inferred from the others. The cost raises a TableError
    for any other block that was not measured at any size.
    """
    rows: dict[str, dict[int, float]] = defaultdict(dict)
    for (text, size), block_ms in sorted(_blocks_ms(measurements).items()):
        rows[text][size] = block_ms

    def cost(block: Block, size: int) -> float:
        if repr(block) not in rows:
            raise TableError(f"{measurements!r} has no row for {block}; profile the device for this family")
        by_size = rows[repr(block)]
        sizes = list(by_size)
        if size in by_size:
            return by_size[size]
        if len(sizes) == 1:
            return by_size[sizes[0]] * (size / sizes[0]) ** 2
        right = min(max(bisect(sizes, size), 1), len(sizes) - 1)
        low, high = sizes[right - 1], sizes[right]
        share = (size**2 - low**2) / (high**2 - low**2)
        return max(by_size[low] + share * (by_size[high] - by_size[low]), 0.0)

    return cost


def _blocks_ms(measurements: Measurements) -> dict[tuple[str, int], float]:
    """Return the latency of each block, less the overhead, by its text and size; inferred where it was not measured."""
    overhead_ms = measurements.overhead.median_ms
    blocks_ms = {key: max(timing.median_ms - overhead_ms, 0.0) for key, timing in measurements.rows.items()}
    keys = {(repr(block), size): (block, size) for block, size in distinct_blocks(measurements.measured)}
    missing = [key for key in keys if key not in blocks_ms]
    if missing and len(missing) < len(keys):
        known_ms = {keys[key]: ms for key, ms in blocks_ms.items() if key in keys}
        inferred_ms = infer_ms(known_ms, [keys[key] for key in missing])
        blocks_ms |= dict(zip(missing, inferred_ms, strict=True))
    return blocks_ms
