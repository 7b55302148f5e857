"""Latency on a new device from a few networks, by a model over devices and archs; `docs/latency.md` explains it.

The task is that of HELP (arXiv 2106.08630): tables of other devices hold whole networks, and ten are measured here.
"""

from collections.abc import Sequence
from typing import NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve
from threadpoolctl import threadpool_limits
from torch import Tensor

from ofa.core.errors import TableError
from ofa.core.minimize import minimize
from ofa.core.prediction import HALF_WIDTH_STDS, INTERVAL, Prediction
from ofa.cost.counted import macs_m, params_m
from ofa.cost.latency.measurements import OtherDevice
from ofa.predict.encoding import Encoding
from ofa.space.arch import Rows
from ofa.supernet.family import Family

Floats = NDArray[np.float64]
Positions = NDArray[np.int64]
Parameters = dict[str, Tensor]

_LEAST_NETWORKS, _MAX_NETWORKS = 10, 2000  # of another device that are learned; time grows with the third power
_NOISES = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)  # candidates for another device, relative to the variance
_TASKS, _TASK_NETWORKS = 8, 12  # practice on each other device
_STEPS, _OWN_STD, _SHARED_STD = 40, 1.5, 2.0
_POOL = 1000  # archs of which some are chosen, and archs that are to be predicted well
_CHUNK = 2000  # archs at once, times the networks of other devices
_LEAST_NOISE = 1e-4  # of measured latencies, relative to their variance
_LEAST_SHARE = 0.01  # of the fastest measured latency: the least that is predicted
_PRIOR = {
    "constant": 0.0,
    "shared": 0.0,
    "devices": -1.0,
    "counts": -1.0,
    "states": -3.0,
    "nearby": -3.0,
    "length": 0.0,
    "noise": -4.0,
}
"""Logarithms of the parameters before any device was seen."""


class Networks(NamedTuple):
    """Whole networks that were measured on a device: rows `[n, n_choices]` and latencies in ms `[n]`."""

    rows: Rows
    latency_ms: Floats


class _Inputs(NamedTuple):
    """What the model reads of archs: latencies on other devices, counts, states; each standardized `[..., n, k]`."""

    others: Tensor
    counts: Tensor
    states: Tensor

    def part(self, chosen: Positions) -> "_Inputs":
        return _Inputs(*(x[..., torch.from_numpy(chosen), :] for x in self))

    def without(self, device: int) -> "_Inputs":
        kept = [i for i in range(self.others.shape[-1]) if i != device]
        return self._replace(others=self.others[..., kept])


_Tasks = tuple[_Inputs, Tensor]
"""Tasks of one size: what is read of their networks `[tasks, n, k]`, and their standardized latencies `[tasks, n]`."""


class Transfer:
    """A Gaussian process over archs, whose kernel was learned by practice on other devices.

    The latency of an arch is a sum of parts, each with an amplitude: what the other devices share, how they differ,
    the numbers of choices in each state, single choices, and what archs have in common that are alike on all other
    devices. The amplitudes are those with which the other devices, each in its turn taken for the new one, are most
    likely: one set for all of them, and one for each, since devices differ in kind. For a new device, the sets are
    weighted by how likely they make its networks. Latencies, not their logarithms, are learned, as they add up.

    Args:
        encoding: the archs of the space; its features are read as they are.
        others: networks measured on other devices, not the same ones necessarily.
        seed: of what is drawn.

    Raises:
        TableError: there is no other device, or one with less than ten networks, which tell too little of it.
    """

    def __init__(self, encoding: Encoding, others: Sequence[Networks], *, seed: int = 0) -> None:
        if not others or min(len(one.latency_ms) for one in others) < _LEAST_NETWORKS:
            raise TableError(
                f"a new device needs tables of other devices with {_LEAST_NETWORKS} networks or more each; give others"
            )
        self._encoding, self._others, self._seed = encoding, others, seed
        with threadpool_limits(1):  # the matrices are small
            self._scale = _Standard(self._raw(np.concatenate([one.rows for one in others])))
            self._smooth = [_Smooth(*self._columns(one.rows), one.latency_ms, seed) for one in others]
            self._sets = _learn_sets([self._practice(device, one) for device, one in enumerate(others)])

    @classmethod
    def of(cls, family: Family, others: Sequence[OtherDevice]) -> Self:
        """Start from other devices on which networks of a family were measured; MACs and parameters are read, too."""
        encoding = Encoding(family.space, {"macs_m": macs_m(family), "params_m": params_m(family)})
        networks = [Networks(family.space.rows(one.networks), np.array([*one.networks.values()])) for one in others]
        return cls(encoding, networks)

    def _raw(self, rows: Rows) -> tuple[Floats, Floats]:
        """Return counts `[n, n_counts]`, features among them, and states one-hot `[n, n_states]`."""
        features = [feature(rows)[:, None] for feature in self._encoding.features.values()]
        return np.concatenate([self._encoding.counts(rows), *features], axis=1), self._encoding.one_hot(rows)

    def _columns(self, rows: Rows) -> tuple[Floats, Floats]:
        """Return counts and states, standardized."""
        return self._scale(self._raw(rows))

    def inputs(self, rows: Rows) -> _Inputs:
        """Return what the model reads of rows `[n, n_choices]`."""
        counts, states = self._columns(rows)
        others = np.stack([one(counts, states) for one in self._smooth], axis=1)
        return _Inputs(*map(torch.from_numpy, (others, counts, states)))

    def _practice(self, device: int, networks: Networks) -> _Tasks:
        """Return tasks on another device: inputs `[tasks, n, k]` and standardized latencies `[tasks, n]`."""
        n = min(_TASK_NETWORKS, len(networks.rows))
        rng = np.random.default_rng((self._seed, device))
        drawn = [rng.permutation(len(networks.rows))[:n] for _ in range(_TASKS)]
        inputs = [self.inputs(networks.rows[chosen]).without(device) for chosen in drawn]
        targets = [_standardized(networks.latency_ms[chosen])[0] for chosen in drawn]
        return _Inputs(*map(torch.stack, zip(*inputs, strict=True))), torch.from_numpy(np.stack(targets))

    def choose(self, n: int, candidates: Rows) -> Positions:
        """Return the positions `[n]` of the candidates `[m, n_choices]` that tell most of all others.

        One after another, the one that leaves the least variance; before anything was measured on the device.
        """
        rng = np.random.default_rng(self._seed)
        drawn, judged = (rng.permutation(len(candidates))[:_POOL] for _ in range(2))
        inputs = self.inputs(candidates[np.concatenate([drawn, judged])])
        n = min(n, len(drawn))
        return drawn[_most_telling(inputs, len(drawn), n, self._sets[0])]

    def fit(self, networks: Networks) -> "FittedTransfer":
        """Learn the networks that were measured on the new device.

        Raises:
            TableError: there are less than two.
        """
        if len(networks.rows) < 2:
            raise TableError(f"a new device needs two networks or more, not {len(networks.rows)}; measure about ten")
        with threadpool_limits(1):
            return FittedTransfer(self, networks)

    def posterior(self, inputs: _Inputs, targets: Tensor) -> "_Mixture":
        """Return the mixture of all sets for measured inputs and standardized latencies `[n]`."""
        return _Mixture(inputs, targets, self._sets)

    def spread(self, n: int) -> float:
        """Return the factor on standard deviations with which intervals from `n` networks hold on other devices."""
        if len(self._sets) < 2:
            return 1.0
        deviations = []
        for device, networks in enumerate(self._others):
            if len(networks.rows) <= n:
                continue
            drawn = np.random.default_rng((self._seed, 1, device)).permutation(len(networks.rows))[:_POOL]
            inputs, latency_ms = self.inputs(networks.rows[drawn]).without(device), networks.latency_ms[drawn]
            chosen = _most_telling(inputs, len(drawn), n, self._sets[0])
            targets, mean, scale = _standardized(latency_ms[chosen])
            predicted, std = self.posterior(inputs.part(chosen), torch.from_numpy(targets))(inputs)
            rest = np.setdiff1d(np.arange(len(drawn)), chosen)
            deviations.append(np.abs(((latency_ms - mean) / scale - predicted) / std)[rest])
        if not deviations:
            return 1.0
        return float(np.quantile(np.concatenate(deviations), INTERVAL) / HALF_WIDTH_STDS)


class FittedTransfer:
    """Latencies on the new device."""

    def __init__(self, transfer: Transfer, networks: Networks) -> None:
        self._transfer = transfer
        targets, self._mean_ms, self._scale_ms = _standardized(networks.latency_ms)
        self._mixture = transfer.posterior(transfer.inputs(networks.rows), torch.from_numpy(targets))
        self._spread = transfer.spread(len(networks.rows))
        self._least_ms = _LEAST_SHARE * float(networks.latency_ms.min())

    def __call__(self, rows: Rows) -> Floats:
        """Return the latency in ms `[n]` of rows `[n, n_choices]`."""
        return self.predict(rows).mean

    def predict(self, rows: Rows) -> Prediction:
        """Return the latency in ms and its interval for rows `[n, n_choices]`."""
        means, stds = [np.zeros(0)], [np.zeros(0)]
        with threadpool_limits(1):
            for start in range(0, len(rows), _CHUNK):
                mean, std = self._mixture(self._transfer.inputs(rows[start : start + _CHUNK]))
                means.append(mean)
                stds.append(std)
        mean_ms = self._mean_ms + self._scale_ms * np.concatenate(means)
        half_width = HALF_WIDTH_STDS * self._spread * self._scale_ms * np.concatenate(stds)
        ends = (mean_ms, mean_ms - half_width, mean_ms + half_width)
        return Prediction(*(np.maximum(end, self._least_ms) for end in ends))


class _Standard:
    """Brings columns to mean 0 and standard deviation 1, those of counts and of states."""

    def __init__(self, columns: tuple[Floats, Floats]) -> None:
        self._centers = [x.mean(axis=0) for x in columns]
        self._spreads = [np.where(x.std(axis=0) > 1e-9, x.std(axis=0), np.inf) for x in columns]

    def __call__(self, columns: tuple[Floats, Floats]) -> tuple[Floats, Floats]:
        counts, states = ((x - c) / s for x, c, s in zip(columns, self._centers, self._spreads, strict=True))
        return counts, states


class _Smooth:
    """Latency on another device, standardized: a Gaussian process over its networks with a kernel that is given.

    Args:
        counts: of the networks `[n, n_counts]`, standardized.
        states: likewise `[n, n_states]`.
        latency_ms: of the networks `[n]`.
        seed: of the networks that are left out where there are too many.
    """

    def __init__(self, counts: Floats, states: Floats, latency_ms: Floats, seed: int) -> None:
        kept = np.random.default_rng(seed).permutation(len(counts))[:_MAX_NETWORKS]
        self._columns, self._states = np.concatenate([counts, states], axis=1)[kept], states[kept]
        targets, _, _ = _standardized(latency_ms[kept])
        covariance, best = self._kernel(counts[kept], self._states), -np.inf
        for noise in _NOISES:
            factor = cho_factor(covariance + noise * np.eye(len(kept)), lower=True)
            weights = cho_solve(factor, targets)
            evidence = -0.5 * targets @ weights - np.log(np.diag(factor[0])).sum()
            if evidence > best:
                best, self._weights = evidence, weights

    def _kernel(self, counts: Floats, states: Floats) -> Floats:
        columns = np.concatenate([counts, states], axis=1)
        linear = columns @ self._columns.T / columns.shape[1]
        far = ((states**2).sum(axis=1)[:, None] + (self._states**2).sum(axis=1) - 2 * states @ self._states.T).clip(0)
        covariance: Floats = linear + 0.5 * np.exp(-far / states.shape[1])
        return covariance

    def __call__(self, counts: Floats, states: Floats) -> Floats:
        """Return the standardized latencies `[n]` of archs."""
        latency: Floats = self._kernel(counts, states) @ self._weights
        return latency


class _Mixture:
    """The posteriors of several sets of parameters, weighted by how likely each makes what was measured."""

    def __init__(self, inputs: _Inputs, targets: Tensor, sets: Sequence[Parameters]) -> None:
        self._inputs, self._sets, self._solved, evidence = inputs, sets, [], []
        for parameters in sets:
            factor = _factor(inputs, parameters)
            self._solved.append((torch.cholesky_solve(targets[:, None], factor)[:, 0], torch.cholesky_inverse(factor)))
            evidence.append(-_surprise(inputs, targets, parameters))
        self._shares = torch.stack(evidence).softmax(0)

    def __call__(self, inputs: _Inputs) -> tuple[Floats, Floats]:
        """Return means and standard deviations `[n]` of standardized latencies."""
        means, variances = [], []
        for parameters, (weights, inverse) in zip(self._sets, self._solved, strict=True):
            covariance = _kernel(inputs, self._inputs, parameters)
            explained = ((covariance @ inverse) * covariance).sum(dim=1)
            own = _own_variance(inputs, parameters) + parameters["noise"].exp()
            means.append(covariance @ weights)
            variances.append((own - explained).clamp_min(1e-12))
        mean = self._shares @ torch.stack(means)
        variance = self._shares @ (torch.stack(variances) + (torch.stack(means) - mean).square())
        return mean.numpy(), variance.sqrt().numpy()


def _learn_sets(of_devices: Sequence[_Tasks]) -> list[Parameters]:
    """Return the parameters learned from the tasks of all devices together, then those of each."""
    prior = {name: torch.tensor(value, dtype=torch.float64) for name, value in _PRIOR.items()}
    if len(of_devices) < 2:  # nothing to practise on
        return [prior]
    shared = _learn(of_devices, prior, _SHARED_STD)
    return [shared, *(_learn([tasks], shared, _OWN_STD) for tasks in of_devices)]


def _learn(of_devices: Sequence[_Tasks], start: Parameters, std: float) -> Parameters:
    """Return the parameters that make the tasks of some devices most likely, near the start."""
    parameters = {name: value.clone() for name, value in start.items()}

    def loss() -> Tensor:
        far = sum(((parameters[name] - start[name]) / std).square() for name in parameters)
        return torch.stack([_surprise(*tasks, parameters).sum() for tasks in of_devices]).sum() + 0.5 * far

    minimize(loss, parameters, _STEPS)
    return parameters


def _surprise(inputs: _Inputs, targets: Tensor, parameters: Parameters) -> Tensor:
    """Return the negative log likelihood `[...]` of standardized latencies `[..., n]`, up to a constant."""
    factor = _factor(inputs, parameters)
    whitened = torch.linalg.solve_triangular(factor, targets[..., None], upper=False)
    surprise: Tensor = 0.5 * whitened.square().sum((-2, -1)) + factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    return surprise


def _factor(inputs: _Inputs, parameters: Parameters) -> Tensor:
    """Return the Cholesky factor of the covariance of measured latencies `[..., n, n]`."""
    noise = parameters["noise"].exp() + _LEAST_NOISE
    n = inputs.others.shape[-2]
    factor: Tensor = torch.linalg.cholesky(_kernel(inputs, inputs, parameters) + noise * torch.eye(n).double())
    return factor


def _kernel(a: _Inputs, b: _Inputs, parameters: Parameters) -> Tensor:
    """Return the covariance of archs `[..., n_a, n_b]`."""
    amplitude = {name: value.exp() for name, value in parameters.items()}
    shared_a, shared_b = a.others.mean(-1, keepdim=True), b.others.mean(-1, keepdim=True)
    covariance = amplitude["constant"] + amplitude["shared"] * shared_a @ shared_b.mT
    covariance = covariance + amplitude["devices"] * _product(a.others - shared_a, b.others - shared_b)
    covariance = covariance + amplitude["counts"] * _product(a.counts, b.counts)
    covariance = covariance + amplitude["states"] * _product(a.states, b.states)
    squares = (a.others.square().sum(-1)[..., None] + b.others.square().sum(-1)[..., None, :]) / a.others.shape[-1]
    far = (squares - 2 * _product(a.others, b.others)).clamp_min(0)
    return covariance + amplitude["nearby"] * (-0.5 * far / amplitude["length"].square()).exp()


def _own_variance(inputs: _Inputs, parameters: Parameters) -> Tensor:
    """Return the variances of archs `[n]`, the diagonal of their covariance."""
    amplitude = {name: value.exp() for name, value in parameters.items()}
    shared = inputs.others.mean(-1, keepdim=True)
    parts = {"devices": inputs.others - shared, "counts": inputs.counts, "states": inputs.states}
    variance = amplitude["constant"] + amplitude["nearby"] + amplitude["shared"] * shared[..., 0].square()
    return variance + sum(amplitude[name] * x.square().sum(-1) / max(x.shape[-1], 1) for name, x in parts.items())


def _product(a: Tensor, b: Tensor) -> Tensor:
    return a @ b.mT / max(a.shape[-1], 1)


def _most_telling(inputs: _Inputs, n_candidates: int, n: int, parameters: Parameters) -> Positions:
    """Return `n` of the first archs whose measurement leaves the others the least variance, greedily."""
    covariance = _kernel(inputs, inputs.part(np.arange(n_candidates)), parameters)  # [all, candidates]
    noise, chosen = float(parameters["noise"].exp()), list[int]()
    for _ in range(n):
        variance = covariance[:n_candidates].diagonal() + noise
        gain = covariance.square().mean(0) / variance
        gain[chosen] = -1.0
        chosen.append(int(gain.argmax()))
        column, row = covariance[:, chosen[-1]].clone(), covariance[chosen[-1]].clone()
        covariance = covariance - column[:, None] * row / variance[chosen[-1]]
    return np.array(chosen, dtype=np.int64)


def _standardized(latency_ms: Floats) -> tuple[Floats, float, float]:
    """Return latencies with mean 0 and standard deviation 1, with the mean and the scale in ms."""
    mean, scale = float(latency_ms.mean()), float(latency_ms.std()) or 1.0
    return (latency_ms - mean) / scale, mean, scale
