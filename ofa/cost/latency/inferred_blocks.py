"""Latency of blocks that were not measured: a Gaussian process over the fields of blocks, fitted to those that were."""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ofa.core.gaussian_process import fit, smooth_and_linear
from ofa.supernet.block import Block

Floats = NDArray[np.float64]
SizedBlock = tuple[Block, int]
"""A block, and the height and width of its input in pixels."""

_MOST_FITTED = 300
"""Blocks from which scales are learned, which takes the cube of their number."""
_LEAST_SHARE = 1e-3
"""Least latency of a block, relative to the mean: a busy device can time one below its overhead."""


def infer_ms(measured_ms: Mapping[SizedBlock, float], wanted: Sequence[SizedBlock]) -> list[float]:
    """Return the latencies in ms of blocks, in their order, given those of one or more others.

    The Gaussian process is one of the logarithm, with a linear part, since a latency is about a product of powers of
    sizes. It reads the logarithm of each number among the fields of a block, and for other fields what they are.
    """
    latency_ms = np.array(list(measured_ms.values()))
    known = np.log(np.maximum(latency_ms, _LEAST_SHARE * max(latency_ms.mean(), 1e-9)))
    columns = _columns([*measured_ms, *wanted])
    fitted, asked = columns[: len(known)], columns[len(known) :]
    kernel = smooth_and_linear(columns.shape[1], 1e-3, 1e-1)
    some = np.random.default_rng(0).permutation(len(known))[:_MOST_FITTED]
    learned = fit(kernel, fitted[some], known[some], normalize_y=True)
    regressor = fit(learned.kernel_, fitted, known, optimizer=None, normalize_y=True)
    inferred: list[float] = np.exp(regressor.predict(asked)).tolist()
    return inferred


def _columns(blocks: Sequence[SizedBlock]) -> Floats:
    """Return what tells the blocks apart, `[n, n_columns]`, each column standardized.

    A number that a kind of block does not have is the mean of the others.
    """
    described = [_describe(block, size) for block, size in blocks]
    names = list(dict.fromkeys(name for one in described for name in one))
    columns = np.array([[one.get(name, np.nan) for name in names] for one in described])
    is_category = np.array([isinstance(name, tuple) for name in names])
    columns = np.where(np.isnan(columns), np.where(is_category, 0.0, np.nanmean(columns, axis=0)), columns)
    spread = columns.std(axis=0)
    kept = spread > 1e-9
    standardized: Floats = (columns[:, kept] - columns[:, kept].mean(axis=0)) / spread[kept]
    return standardized


def _describe(block: Block, size: int) -> dict[Any, float]:
    """Return the numbers of a block by the names of its fields, and 1 for each pair of another field and its value."""
    described: dict[Any, float] = {("kind", type(block).__name__): 1.0, "size": np.log(size)}
    for one in fields(block):  # type: ignore[arg-type]  # blocks are dataclasses
        value = getattr(block, one.name)
        if isinstance(value, int | float) and not isinstance(value, bool) and value > 0:
            described[one.name] = np.log(value)
        else:
            described[one.name, str(value)] = 1.0
    return described
