"""From the timings of blocks to the latency of networks: a regression on a few measured networks.

The sum of blocks that were timed alone is not the network's latency: a runtime fuses across their borders, converts
layouts at the ends only, pays once for a run, and finds less in the processor's caches the larger the network is. So
weights are fitted: one for all blocks together, one for the overhead, and corrections of five kinds (`_features`).
Each kind is drawn to 0 as strongly as the networks say it should be (empirical Bayes; Bishop, Pattern Recognition and
Machine Learning, 3.3 and 3.5), so that a few dozen networks are enough. All errors are relative.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student

Floats = NDArray[np.float64]

_STRENGTHS = np.logspace(-3, 4, 29)
"""Variances of the corrections, relative to the noise's, among which the evidence decides."""
_SWEEPS = 3
_FREE = 1e6
"""The same of the weights of the sum and of the overhead, which are hardly drawn to 1."""
_LEAST = 1e-8
"""Relative variance of the noise at least."""
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
    """

    blocks_ms: Floats
    resolution: Floats
    params_m: Floats


@dataclass(frozen=True)
class BlockRegression:
    """Latency of networks from their blocks'.

    Attributes:
        overhead_ms: of a run that does nothing.
        known: the networks that it was fitted to.
        weights: of the features.
        covariance: of the weights, relative to the noise's variance.
        noise: relative standard deviation of a network around its prediction.
        freedom: degrees of freedom that the noise was estimated with.
    """

    overhead_ms: float
    known: Networks
    weights: Floats
    covariance: Floats
    noise: float
    freedom: int

    @classmethod
    def fit(cls, known: Networks, latency_ms: Floats, overhead_ms: float) -> BlockRegression:
        """Fits to measured networks.

        Args:
            known: the networks.
            latency_ms: what they take `[n]`.
            overhead_ms: of a run that does nothing.
        """
        n = len(latency_ms)
        freedom, kinds = max(n - 2, 1), _features(known, known, overhead_ms)
        sizes = [kind.shape[1] for kind in kinds]
        relative = np.concatenate(kinds, axis=1) / latency_ms[:, None]
        plain = np.zeros(sum(sizes))
        plain[:2] = 1.0
        residual = 1 - relative @ plain

        def judge(strengths: list[float]) -> tuple[float, float]:
            """The evidence for kinds of these strengths, and the variance of the noise that goes with them."""
            spread = np.eye(n) + (relative * np.repeat(strengths, sizes)) @ relative.T  # relative to the noise
            noise = float(residual @ np.linalg.solve(spread, residual)) / freedom + _LEAST
            return -0.5 * float(freedom * np.log(noise) + np.linalg.slogdet(spread)[1]), noise

        strengths = [_FREE] + [1.0] * (len(kinds) - 1)
        for _ in range(_SWEEPS):
            for kind in range(1, len(kinds)):
                tried = [[*strengths[:kind], float(strength), *strengths[kind + 1 :]] for strength in _STRENGTHS]
                strengths = max(tried, key=lambda one: judge(one)[0])
        precision = relative.T @ relative + np.diag(1 / np.repeat(strengths, sizes))
        covariance = np.asarray(np.linalg.inv(precision), dtype=np.float64)
        weights: Floats = plain + covariance @ relative.T @ residual
        return cls(overhead_ms, known, weights, covariance, float(np.sqrt(judge(strengths)[1])), freedom)

    def predict(self, networks: Networks) -> tuple[Floats, Floats, Floats]:
        """Latency `[n]`, and the ends of the interval that holds `INTERVAL` of such networks."""
        features = np.concatenate(_features(networks, self.known, self.overhead_ms), axis=1)
        latency_ms = features @ self.weights
        relative = features / latency_ms[:, None]
        variance = 1 + ((relative @ self.covariance) * relative).sum(axis=1)
        half = student.ppf((1 + INTERVAL) / 2, self.freedom) * self.noise * np.sqrt(variance)
        return latency_ms, latency_ms * np.exp(-half), latency_ms * np.exp(half)


def _features(networks: Networks, known: Networks, overhead_ms: float) -> list[Floats]:
    """The overhead and the sum of the blocks; then, kind by kind, what may have to be corrected, in ms.

    Each slot's block; a typical block where a slot has one; that in proportion to the pixels, as layout conversions
    are; the sum at each resolution; each slot's block in proportion to the parameters, which fill the caches.
    """
    filled, there = np.nan_to_num(networks.blocks_ms), ~np.isnan(networks.blocks_ms)
    typical_ms = np.nansum(known.blocks_ms, axis=0) / np.maximum((~np.isnan(known.blocks_ms)).sum(axis=0), 1)
    total, slots = filled.sum(axis=1, keepdims=True), there * typical_ms
    area = networks.resolution**2 / np.mean(known.resolution**2)
    size = networks.params_m / np.mean(known.params_m)
    at = networks.resolution[:, None] == np.unique(known.resolution)
    first = np.concatenate([np.full_like(total, overhead_ms), total], axis=1)
    return [first, filled, slots, slots * area[:, None], at * total, filled * size[:, None]]
