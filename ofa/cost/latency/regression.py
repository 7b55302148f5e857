"""Bayesian linear regression from the timings of blocks to the latency of networks; `docs/latency.md` explains it.

Prior variances follow from the evidence (Bishop, Pattern Recognition and Machine Learning, 3.3 and 3.5), intervals from
cross-validation residuals (Barber et al., Predictive inference with the jackknife+, 2021, section 4).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve
from threadpoolctl import threadpool_limits

from ofa.core.prediction import INTERVAL, Prediction

Floats = NDArray[np.float64]
Codes = NDArray[np.int64]
Groups = dict[str, Floats]
"""Columns of a design matrix by the name of their group, `[n, n_columns]` each."""

_PRIOR_VARIANCES = np.logspace(-3, 4, 15)  # candidates for a group's coefficients, relative to the noise variance
_FREE_VARIANCE = 1e6  # of the coefficients of the plain sum, which are hardly shrunk
_SWEEPS = 3  # of coordinate ascent over the groups
_MIN_NOISE = 1e-8  # relative noise variance
_FOLDS = 10


class Networks(NamedTuple):
    """The `n` networks whose latency is predicted.

    Attributes:
        blocks_ms: latency of the block in each slot, timed alone, less the overhead `[n, n_slots]`; 0 in empty slots.
        present: whether a slot has a block `[n, n_slots]`.
        resolution: image resolution in pixels `[n]`.
        params_m: millions of parameters `[n]`.
        blocks: code of the block in each slot, from 0 `[n, n_slots]`; arbitrary in empty slots.
        choices: code of the value of each choice, from 0 `[n, n_choices]`.
    """

    blocks_ms: Floats
    present: NDArray[np.bool_]
    resolution: Floats
    params_m: Floats
    blocks: Codes
    choices: Codes


@dataclass(frozen=True)
class BlockRegression:
    """Posterior of a linear model of latency over features of blocks; all errors are relative to the latency.

    Attributes:
        overhead_ms: latency of a network that does nothing.
        training: networks that the model was fitted to.
        coefficients: posterior mean for the columns of the dense groups, in their order.
        covariance: posterior covariance of `coefficients`, relative to the noise variance.
        effects: posterior means of the one-hot groups: by how much a block or a choice changes the latency, relative to
            the sum of the blocks.
        half_width: half width of intervals relative to the latency, for networks like the training ones.
    """

    overhead_ms: float
    training: Networks
    coefficients: Floats
    covariance: Floats
    effects: Mapping[str, Sequence[Floats]]
    half_width: float = math.inf

    @classmethod
    def fit(
        cls, training: Networks, latency_ms: Floats, overhead_ms: float, relative_error: float = 0.0
    ) -> BlockRegression:
        """Fit the model to measured networks.

        Args:
            training: at least one network. Intervals are infinite with only one.
            latency_ms: measured latencies `[n]`.
            overhead_ms: latency of a network that does nothing.
            relative_error: relative standard error of `latency_ms`. The noise is at least that, so that the fit does
                not chase differences that the measurements do not support.
        """
        n, scores = len(latency_ms), []
        with threadpool_limits(1):  # the matrices are small, and threads wait for each other on a busy machine
            design, residual = _relative_design(training, latency_ms, overhead_ms)
            variances = _prior_variances(design, residual, max(relative_error**2, _MIN_NOISE))
            for fold in range(min(_FOLDS, n) if n > 1 else 0):
                held_out = np.arange(n) % _FOLDS == fold
                tested, others = (Networks(*(array[mask] for array in training)) for mask in (held_out, ~held_out))
                model = cls._posterior(others, latency_ms[~held_out], overhead_ms, variances)
                predicted_ms, widening = model._mean_and_widening(tested)
                scores.append(np.abs(np.log(latency_ms[held_out] / predicted_ms)) / widening)
            half_width = _conformal_quantile(np.concatenate(scores)) if scores else math.inf
            return replace(cls._posterior(training, latency_ms, overhead_ms, variances), half_width=half_width)

    @classmethod
    def _posterior(
        cls, training: Networks, latency_ms: Floats, overhead_ms: float, variances: Mapping[str, float]
    ) -> BlockRegression:
        """Return the posterior for given prior variances, in its dual form: one row per network, not per column."""
        design, residual = _relative_design(training, latency_ms, overhead_ms)
        precision = np.linalg.inv(_marginal_covariance(design, variances))
        dual = precision @ residual
        means = {name: variances[name] * (columns.T @ dual) for name, columns in design.items()}
        one_hot = _codes(training)
        dense = [name for name in design if name not in one_hot]
        coefficients = np.concatenate([means[name] for name in dense])
        coefficients[:2] += 1.0  # the prior mean is the plain sum
        columns = np.concatenate([design[name] for name in dense], axis=1)
        prior = np.repeat([variances[name] for name in dense], [design[name].shape[1] for name in dense])
        covariance = np.diag(prior) - (prior[:, None] * columns.T) @ precision @ (columns * prior)
        effects = {name: _effects(codes, means[name]) for name, codes in one_hot.items()}
        return cls(overhead_ms, training, coefficients, covariance, effects)

    def __call__(self, networks: Networks) -> Floats:
        """Return the latency in ms `[n]`, the mean of `predict` in less time."""
        return self._evaluate(networks)[1]

    def predict(self, networks: Networks) -> Prediction:
        """Return the latency in ms and its interval, which is wider for networks unlike the training ones."""
        latency_ms, widening = self._mean_and_widening(networks)
        half_width = self.half_width * widening
        return Prediction(latency_ms, latency_ms * np.exp(-half_width), latency_ms * np.exp(half_width))

    def _mean_and_widening(self, networks: Networks) -> tuple[Floats, Floats]:
        """Return the latency `[n]` and the predictive standard deviation relative to the noise's `[n]`."""
        columns, latency_ms = self._evaluate(networks)
        relative = columns / latency_ms[:, None]
        variance = ((relative @ self.covariance) * relative).sum(axis=1)
        return latency_ms, np.sqrt(1 + np.maximum(variance, 0.0))

    def _evaluate(self, networks: Networks) -> tuple[Floats, Floats]:
        """Return the dense columns `[n, n_columns]` and the latency in ms `[n]`."""
        groups = _dense_groups(networks, self.training, self.overhead_ms)
        columns = np.concatenate(list(groups.values()), axis=1)
        latency_ms = columns @ self.coefficients
        for name, codes in _codes(networks).items():
            latency_ms += groups["plain_sum"][:, 1] * _total_effect(codes, self.effects[name])
        return columns, latency_ms


def _effects(codes: Codes, coefficients: Floats) -> list[Floats]:
    """Return the coefficients of `_one_hot(codes)` by column and code; 0 for codes that no training network has."""
    effects, start = [], 0
    for column in codes.T:
        seen = np.unique(column)
        effects.append(np.zeros(seen[-1] + 2))  # the last entry is for all larger codes
        effects[-1][seen] = coefficients[start : start + len(seen)]
        start += len(seen)
    return effects


def _total_effect(codes: Codes, effects: Sequence[Floats]) -> Floats:
    """Return the sum of the effects over the columns `[n]`."""
    total = np.zeros(len(codes))
    for column, by_code in zip(codes.T, effects, strict=True):
        total += by_code.take(column, mode="clip")
    return total


def _dense_groups(networks: Networks, training: Networks, overhead_ms: float) -> Groups:
    """Return the dense groups of the design matrix, in ms."""
    total_ms = networks.blocks_ms.sum(axis=1, keepdims=True)
    mean_block_ms = training.blocks_ms.sum(axis=0) / np.maximum(training.present.sum(axis=0), 1)
    slots_ms = networks.present * mean_block_ms
    area = networks.resolution**2 / np.mean(training.resolution**2)
    params = networks.params_m / np.mean(training.params_m)
    at_resolution = networks.resolution[:, None] == np.unique(training.resolution)
    return {
        "plain_sum": np.concatenate([np.full_like(total_ms, overhead_ms), total_ms], axis=1),  # overhead and blocks
        "blocks": networks.blocks_ms,  # fusion makes the blocks of a slot cheaper
        "slots": slots_ms,  # a cost of having a block in a slot at all
        "slots_by_area": slots_ms * area[:, None],  # layout conversions between blocks
        "resolutions": at_resolution * total_ms,
        "blocks_by_params": networks.blocks_ms * params[:, None],  # larger networks miss the cache more often
    }


def _codes(networks: Networks) -> dict[str, Codes]:
    """Return the codes of the one-hot groups: the block of each slot, where 0 is none, and the value of each choice."""
    return {"block_codes": np.where(networks.present, networks.blocks + 1, 0), "choice_codes": networks.choices}


def _relative_design(training: Networks, latency_ms: Floats, overhead_ms: float) -> tuple[Groups, Floats]:
    """Return all groups of the design matrix relative to the latency, and the residual of the plain sum `[n]`."""
    design = _dense_groups(training, training, overhead_ms)
    total_ms = design["plain_sum"][:, 1:]
    design |= {name: total_ms * _one_hot(codes) for name, codes in _codes(training).items()}
    relative = {name: columns / latency_ms[:, None] for name, columns in design.items()}
    return relative, 1 - relative["plain_sum"].sum(axis=1)


def _one_hot(codes: Codes) -> Floats:
    """Return the indicators of the codes that occur in each column `[n, codes of all columns]`."""
    return np.concatenate([column[:, None] == np.unique(column) for column in codes.T], axis=1).astype(np.float64)


def _marginal_covariance(design: Groups, variances: Mapping[str, float]) -> Floats:
    """Return the covariance of the residuals under the prior `[n, n]`, relative to the noise variance."""
    covariance = np.eye(len(design["plain_sum"]))
    for name, columns in design.items():
        covariance += variances[name] * (columns @ columns.T)
    return covariance


def _prior_variances(design: Groups, residual: Floats, min_noise: float) -> dict[str, float]:
    """Return the prior variance of each group relative to the noise's: coordinate ascent on the evidence."""
    variances = dict.fromkeys(design, 1.0) | {"plain_sum": _FREE_VARIANCE}
    covariance = _marginal_covariance(design, variances)
    for _ in range(_SWEEPS):
        for name in list(design)[1:]:
            own = design[name] @ design[name].T
            others = covariance - variances[name] * own
            evidence = [_log_evidence(others + variance * own, residual, min_noise) for variance in _PRIOR_VARIANCES]
            variances[name] = float(_PRIOR_VARIANCES[np.argmax(evidence)])
            covariance = others + variances[name] * own
    return variances


def _log_evidence(covariance: Floats, residual: Floats, min_noise: float) -> float:
    """Return the log likelihood of the residuals up to a constant, at the most likely noise of at least `min_noise`."""
    degrees_of_freedom, factor = max(len(residual) - 2, 1), cho_factor(covariance, lower=True)
    squares = float(residual @ cho_solve(factor, residual))
    noise = max(squares / degrees_of_freedom, min_noise)
    half_log_determinant = float(np.log(np.diag(factor[0])).sum())  # from the Cholesky factor
    return -0.5 * (degrees_of_freedom * math.log(noise) + squares / noise) - half_log_determinant


def _conformal_quantile(scores: Floats) -> float:
    """Return the quantile that covers `INTERVAL` of new scores, from known ones `[n]`; their maximum if n < 9."""
    n = len(scores)
    return float(np.sort(scores)[min(math.ceil(INTERVAL * (n + 1)), n) - 1]) + math.sqrt(_MIN_NOISE)
