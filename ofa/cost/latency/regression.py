"""Bayesian linear regression from the timings of blocks to the latency of networks; `docs/latency.md` explains it.

Prior variances follow from the evidence (Bishop, Pattern Recognition and Machine Learning, 3.3 and 3.5), intervals from
cross-validation residuals (Barber et al., Predictive inference with the jackknife+, 2021, section 4).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Self

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
        effects: posterior mean of how much each code of each column changes the latency, relative to the sum of the
            blocks, for the one-hot groups.
        half_width: half width of intervals relative to the latency, for networks like the training ones.
        least_ms: least prediction, a hundredth of the fastest training network: the timings of a busy device can lead a
            regression below zero.
    """

    overhead_ms: float
    training: Networks
    coefficients: Floats
    covariance: Floats
    effects: Mapping[str, Sequence[NDArray[Any]]]
    least_ms: float
    half_width: float = math.inf

    @classmethod
    def fit(cls, training: Networks, latency_ms: Floats, overhead_ms: float, relative_error: float = 0.0) -> Self:
        """Fit the model to the latencies `[n]` of one or more networks; intervals are infinite with only one.

        The noise is at least the relative standard error of the latencies, so that the fit does not chase differences
        that the measurements do not support.
        """
        n, scores = len(latency_ms), []
        with threadpool_limits(1):  # the matrices are small, and threads wait for each other on a busy machine
            design, residual = _relative_design(training, latency_ms, overhead_ms)
            variances = _prior_variances(_grams(design, training), residual, max(relative_error**2, _MIN_NOISE))
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
    ) -> Self:
        """Return the posterior for given prior variances, in its dual form: one row per network, not per column."""
        design, residual = _relative_design(training, latency_ms, overhead_ms)
        precision = np.linalg.inv(_marginal_covariance(_grams(design, training), variances))
        dual, total = precision @ residual, design["plain_sum"][:, 1]
        columns = np.concatenate(list(design.values()), axis=1)
        prior = np.repeat([variances[name] for name in design], [group.shape[1] for group in design.values()])
        coefficients = np.concatenate([variances[name] * (group.T @ dual) for name, group in design.items()])
        coefficients[:2] += 1.0  # the prior mean is the plain sum
        covariance = np.diag(prior) - (prior[:, None] * columns.T) @ precision @ (columns * prior)
        effects = {
            name: [variances[name] * np.bincount(column, total * dual, int(column.max()) + 2) for column in codes.T]
            for name, codes in _codes(training).items()
        }
        return cls(overhead_ms, training, coefficients, covariance, effects, float(latency_ms.min()) / 100)

    def __call__(self, networks: Networks) -> Floats:
        """Return the latency in ms `[n]`, the mean of `predict` in less time."""
        return self._evaluate(networks)[1]

    def predict(self, networks: Networks) -> Prediction:
        """Return the latency in ms and its interval, which is wider for networks unlike the training ones."""
        latency_ms, widening = self._mean_and_widening(networks)
        half_width = self.half_width * widening
        with np.errstate(over="ignore"):  # to infinity
            return Prediction(latency_ms, latency_ms * np.exp(-half_width), latency_ms * np.exp(half_width))

    def _mean_and_widening(self, networks: Networks) -> tuple[Floats, Floats]:
        """Return the latency `[n]` and the predictive standard deviation relative to the noise's `[n]`."""
        columns, latency_ms = self._evaluate(networks)
        relative = columns / latency_ms[:, None]
        variance = ((relative @ self.covariance) * relative).sum(axis=1)
        return latency_ms, np.sqrt(1 + np.maximum(variance, 0.0))

    def _evaluate(self, networks: Networks) -> tuple[Floats, Floats]:
        """Return the columns of the dense groups `[n, n_columns]` and the latency in ms `[n]`."""
        columns = np.concatenate(list(_dense_groups(networks, self.training, self.overhead_ms).values()), axis=1)
        latency_ms = columns @ self.coefficients
        for name, codes in _codes(networks).items():
            effect = np.zeros(len(codes))
            for column, by_code in zip(codes.T, self.effects[name], strict=True):
                effect += by_code.take(column, mode="clip")  # the last entry is 0, for codes of no training network
            latency_ms += columns[:, 1] * effect
        return columns, np.maximum(latency_ms, self.least_ms)


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
    """Return the dense groups relative to the latency, and the relative residual of the plain sum `[n]`."""
    groups = _dense_groups(training, training, overhead_ms)
    design = {name: columns / latency_ms[:, None] for name, columns in groups.items()}
    return design, 1 - design["plain_sum"].sum(axis=1)


def _grams(design: Groups, training: Networks) -> Groups:
    """Return the Gram matrix `X @ X.T` of each group `[n, n]`; one-hot columns are scaled by the sum of the blocks."""
    groups = dict(design)
    for name, codes in _codes(training).items():
        one_hot = np.concatenate([column[:, None] == np.unique(column) for column in codes.T], axis=1)
        groups[name] = design["plain_sum"][:, 1:] * one_hot
    return {name: columns @ columns.T for name, columns in groups.items()}


def _marginal_covariance(grams: Groups, variances: Mapping[str, float]) -> Floats:
    """Return the covariance of the residuals under the prior `[n, n]`, relative to the noise variance."""
    return sum((variances[name] * gram for name, gram in grams.items()), np.eye(len(grams["plain_sum"])))


def _prior_variances(grams: Groups, residual: Floats, min_noise: float) -> dict[str, float]:
    """Return the prior variance of each group relative to the noise's: coordinate ascent on the evidence."""
    variances = dict.fromkeys(grams, 1.0) | {"plain_sum": _FREE_VARIANCE}
    for _ in range(_SWEEPS):
        for name in list(grams)[1:]:
            others = _marginal_covariance(grams, variances | {name: 0.0})
            evidence = [_log_evidence(others + v * grams[name], residual, min_noise) for v in _PRIOR_VARIANCES]
            variances[name] = float(_PRIOR_VARIANCES[np.argmax(evidence)])
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
