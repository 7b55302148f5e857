"""From the timings of blocks to the latency of networks: a regression on measured networks.

The sum of blocks that were timed alone is not the network's latency: a runtime fuses across their borders, converts
layouts at the ends only, pays once for a run, picks other kernels beside other blocks, and finds less in the
processor's caches the larger the network is. So weights are fitted: one for all blocks together, one for the overhead,
and corrections of seven kinds (`_features`, `_codes`). Each kind is drawn to 0 as strongly as the networks say it
should be (empirical Bayes; Bishop, Pattern Recognition and Machine Learning, 3.3 and 3.5), so that a few dozen networks
are enough; what the measurements themselves are unsure of is not fitted. All errors are relative.

Intervals are as wide as the errors at networks that were left out, a tenth at a time (conformal prediction;
Barber et al., Predictive inference with the jackknife+, 2021, 4), and wider for networks unlike the measured ones.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve
from threadpoolctl import threadpool_limits

Floats = NDArray[np.float64]


Codes = NDArray[np.int64]


_STRENGTHS = np.logspace(-3, 4, 15)
"""Variances of the corrections, relative to the noise's, among which the evidence decides."""


_SWEEPS = 3


_FREE = 1e6
"""The same of the weights of the sum and of the overhead, which are hardly drawn to 1."""


_LEAST = 1e-8
"""Relative variance of the noise at least."""


_FOLDS = 10


INTERVAL = 0.9
"""The share of networks that lie within their interval."""


@dataclass(frozen=True)
class Networks:
    """What latencies are predicted from.

    Attributes:
        blocks_ms: the latency of each network's blocks, timed alone, without overhead; NaN where a slot is empty
            `[n, n_slots]`.
        resolution: of the images that each sees, in pixels `[n]`.
        params_m: parameters of each, in millions `[n]`.
        blocks: which block each slot has, as a number from 0; any where a slot is empty `[n, n_slots]`.
        choices: the value of each choice at that resolution, as a number from 0 `[n, n_choices]`.
    """

    blocks_ms: Floats
    resolution: Floats
    params_m: Floats
    blocks: Codes
    choices: Codes

    def at(self, index: NDArray[np.bool_]) -> Networks:
        """Some of them."""
        return Networks(*(getattr(self, field.name)[index] for field in fields(self)))


@dataclass(frozen=True)
class BlockRegression:
    """Latency of networks from their blocks'.

    Attributes:
        overhead_ms: of a run that does nothing.
        known: the networks that it was fitted to.
        weights: of the features.
        covariance: of those weights, relative to the noise's variance.
        shares: of each block and of each choice, by how much it changes the whole, relative to the sum.
        half: the relative half width of intervals, of networks like the measured ones; infinite if only one is known.
    """

    overhead_ms: float
    known: Networks
    weights: Floats
    covariance: Floats
    shares: tuple[_Shares, ...]
    half: float

    @classmethod
    def fit(cls, known: Networks, latency_ms: Floats, overhead_ms: float, error: float = 0.0) -> BlockRegression:
        """Fits to measured networks.

        Args:
            known: the networks, one or more.
            latency_ms: what they take `[n]`.
            overhead_ms: of a run that does nothing.
            error: the relative standard error of `latency_ms`: noise is at least that.
        """
        n, left_out = len(latency_ms), []
        with threadpool_limits(1):  # matrices are small, and threads would wait for each other on a busy machine
            strengths = _strengths(*_relative(known, latency_ms, overhead_ms), max(error**2, _LEAST))
            for fold in range(min(_FOLDS, n) if n > 1 else 0):
                out = np.arange(n) % _FOLDS == fold
                found = cls._fit(known.at(~out), latency_ms[~out], overhead_ms, strengths)
                predicted_ms, widening = found._wide(known.at(out))
                left_out.append(np.abs(np.log(latency_ms[out] / predicted_ms)) / widening)
            half = _quantile(np.concatenate(left_out)) if left_out else math.inf
            return replace(cls._fit(known, latency_ms, overhead_ms, strengths), half=half)

    @classmethod
    def _fit(
        cls, known: Networks, latency_ms: Floats, overhead_ms: float, strengths: Sequence[float]
    ) -> BlockRegression:
        """All but the width of intervals."""
        kinds, residual = _relative(known, latency_ms, overhead_ms)
        spread = np.linalg.inv(_spread(kinds, strengths))  # relative to the noise's variance
        pull = spread @ residual
        found = [strength * (kind.T @ pull) for kind, strength in zip(kinds, strengths, strict=True)]
        n_dense = len(kinds) - len(_codes(known))
        weights = np.concatenate(found[:n_dense])
        weights[:2] += 1.0
        relative = np.concatenate(kinds[:n_dense], axis=1)
        scale = np.repeat(strengths[:n_dense], [kind.shape[1] for kind in kinds[:n_dense]])
        covariance = np.diag(scale) - (scale[:, None] * relative.T) @ spread @ (relative * scale)
        shares = tuple(_Shares.of(c, one) for c, one in zip(_codes(known), found[n_dense:], strict=True))
        return cls(overhead_ms, known, weights, covariance, shares, math.inf)

    def predict(self, networks: Networks) -> tuple[Floats, Floats, Floats]:
        """Latency `[n]`, and the ends of the interval that holds `INTERVAL` of such networks."""
        latency_ms, widening = self._wide(networks)
        half = self.half * widening
        return latency_ms, latency_ms * np.exp(-half), latency_ms * np.exp(half)

    def latency_ms(self, networks: Networks) -> Floats:
        """Latency `[n]` alone, in half the time."""
        return self._features(networks)[1]

    def _wide(self, networks: Networks) -> tuple[Floats, Floats]:
        """Latency `[n]`, and how much wider than the noise its interval is, for what the weights are not sure of."""
        features, latency_ms = self._features(networks)
        relative = features / latency_ms[:, None]
        variance = ((relative @ self.covariance) * relative).sum(axis=1)
        return latency_ms, np.sqrt(1 + np.maximum(variance, 0.0))

    def _features(self, networks: Networks) -> tuple[Floats, Floats]:
        """The features `[n, n_features]`, and the latency that follows `[n]`."""
        features = np.concatenate(_features(networks, self.known, self.overhead_ms), axis=1)
        latency_ms = features @ self.weights
        for codes, share in zip(_codes(networks), self.shares, strict=True):
            latency_ms += features[:, 1] * share(codes)
        return features, latency_ms


@dataclass(frozen=True)
class _Shares:
    """A number for each code of each column; 0 for those that no measured network has."""

    columns: tuple[Floats, ...]

    @classmethod
    def of(cls, codes: Codes, found: Floats) -> _Shares:
        """From the weights of the `_indicators` of these codes."""
        columns, start = [], 0
        for column in codes.T:
            seen = np.unique(column)
            values = np.zeros(seen[-1] + 2)
            values[seen] = found[start : start + len(seen)]
            columns.append(values)
            start += len(seen)
        return cls(tuple(columns))

    def __call__(self, codes: Codes) -> Floats:
        """The sum over the columns `[n]`."""
        total = np.zeros(len(codes))
        for column, values in zip(codes.T, self.columns, strict=True):
            total += values.take(column, mode="clip")
        return total


def _features(networks: Networks, known: Networks, overhead_ms: float) -> list[Floats]:
    """The overhead and the sum of the blocks; then, kind by kind, what may have to be corrected, in ms.

    Each slot's block; a typical block where a slot has one; that in proportion to the pixels, as layout conversions
    are; the sum at each resolution; each slot's block in proportion to the parameters, which fill the caches.
    """
    there = ~np.isnan(networks.blocks_ms)
    filled = np.where(there, networks.blocks_ms, 0.0)
    typical_ms = np.nansum(known.blocks_ms, axis=0) / np.maximum((~np.isnan(known.blocks_ms)).sum(axis=0), 1)
    total, slots = filled.sum(axis=1, keepdims=True), there * typical_ms
    area = networks.resolution**2 / np.mean(known.resolution**2)
    size = networks.params_m / np.mean(known.params_m)
    at = networks.resolution[:, None] == np.unique(known.resolution)
    first = np.concatenate([np.full_like(total, overhead_ms), total], axis=1)
    return [first, filled, slots, slots * area[:, None], at * total, filled * size[:, None]]


def _relative(known: Networks, latency_ms: Floats, overhead_ms: float) -> tuple[list[Floats], Floats]:
    """All kinds of features relative to the latency, and what is left of it without corrections `[n]`."""
    features = _features(known, known, overhead_ms)
    total = features[0][:, 1:]
    indicators = [total * _indicators(codes) for codes in _codes(known)]
    kinds = [kind / latency_ms[:, None] for kind in (*features, *indicators)]
    return kinds, 1 - kinds[0].sum(axis=1)


def _codes(networks: Networks) -> tuple[Codes, Codes]:
    """Two kinds more, each in proportion to the sum: which block each slot has, and the value of each choice."""
    return np.where(np.isnan(networks.blocks_ms), 0, networks.blocks + 1), networks.choices


def _indicators(codes: Codes) -> Floats:
    """1 where a column has a code, for each of its codes `[n, codes of all columns]`."""
    return np.concatenate([column[:, None] == np.unique(column) for column in codes.T], axis=1).astype(np.float64)


def _spread(kinds: Sequence[Floats], strengths: Sequence[float]) -> Floats:
    """Covariance of the networks' errors before anything is fitted, relative to the noise's variance."""
    spread = np.eye(len(kinds[0]))
    for kind, strength in zip(kinds, strengths, strict=True):
        spread += strength * (kind @ kind.T)
    return spread


def _strengths(kinds: Sequence[Floats], residual: Floats, least: float) -> list[float]:
    """How freely each kind may correct the residual `[n]`: where the evidence is greatest, one kind after another."""
    strengths = [_FREE] + [1.0] * (len(kinds) - 1)
    spread = _spread(kinds, strengths)
    for _ in range(_SWEEPS):
        for index in range(1, len(kinds)):
            own = kinds[index] @ kinds[index].T
            others = spread - strengths[index] * own
            evidence = [_evidence(others + strength * own, residual, least) for strength in _STRENGTHS]
            strengths[index] = float(_STRENGTHS[np.argmax(evidence)])
            spread = others + strengths[index] * own
    return strengths


def _evidence(spread: Floats, residual: Floats, least: float) -> float:
    """Logarithm of the residual's likelihood, up to a constant, if its covariance is that of noise, or of the least."""
    freedom, factor = max(len(residual) - 2, 1), cho_factor(spread, lower=True)
    squares = float(residual @ cho_solve(factor, residual))
    noise = max(squares / freedom, least)
    return -0.5 * (freedom * math.log(noise) + squares / noise) - float(np.log(np.diag(factor[0])).sum())


def _quantile(left_out: Floats) -> float:
    """What `INTERVAL` of new errors are below, by as many known ones `[n]`; of fewer than 9, the largest."""
    n = len(left_out)
    return float(np.sort(left_out)[min(math.ceil(INTERVAL * (n + 1)), n) - 1]) + math.sqrt(_LEAST)
