"""Gaussian process over the choices of archs: each alone, in pairs, and all together (Duvenaud et al., 2011)."""

from functools import partial

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from ofa.core.minimize import minimize
from ofa.predict.encoding import Encoding
from ofa.predict.predictor import Measured, Model, PredictorSettings, Scores, State, deal, under
from ofa.predict.warp import Floats
from ofa.space.arch import Rows

Parameters = dict[str, Tensor]

_PRIOR_STD = {
    "amplitudes": 1.5,
    "rates": 0.7,
    "weights": 0.7,
    "gaps": 0.7,
    "unordered": 2.0,
    "lengths": 1.0,
    "scales": 0.5,
    "noise": 1.5,
}
"""Standard deviations of the normal priors on the parameters, most of which are logarithms."""
_JITTER = 1e-6
_BLOCK = 4096


class GaussianProcessSettings(PredictorSettings):
    """Settings of the predictor `gp`."""

    steps: int = Field(40, ge=1, le=1000)
    """Largest number of steps of L-BFGS for the parameters."""
    max_archs: int = Field(1500, ge=2, le=10_000)
    """Archs that it is fitted to; of more, as many are drawn. Time grows with the third power."""
    folds: int = Field(5, ge=0, le=50)
    """Parts of the archs that are left out in turn to calibrate the intervals; below 2, the model's own word is taken,
    which is quicker by as many fits and too sure of itself."""


class GaussianProcess(Model):
    """A Gaussian process whose kernel adds up parts, each with an amplitude that is learned.

    - each choice alone, and all pairs of choices, with a weight per choice;
    - all choices together: archs that differ in few choices are alike;
    - the numbers of `Encoding.numbers`: linear, and near ones alike.

    Values of a choice lie on a line, with gaps that all choices of a kind share, and are partly unordered, as far as
    the data say so. All parameters are fitted by the posterior density, with priors that keep few archs from ruling.
    """

    name = "gp"
    Settings = GaussianProcessSettings
    settings: GaussianProcessSettings

    def __init__(self, encoding: Encoding, settings: GaussianProcessSettings, *, seed: int = 0) -> None:
        super().__init__(encoding, settings, seed=seed)
        self._kernel = _Kernel(encoding)

    def _fit(self, measured: Measured) -> tuple[State, Scores]:
        rows, scores, noise = measured
        n = self.settings.max_archs
        chosen = np.arange(len(rows))
        if len(rows) > n:
            chosen = np.sort(np.random.default_rng(self.seed).permutation(len(rows))[:n])
        numbers = self.encoding.numbers(rows[chosen])
        center, spread = numbers.mean(axis=0), numbers.std(axis=0)
        spread[spread < 1e-9] = np.inf  # what does not differ tells nothing
        state: State = {"rows": rows[chosen], "center": center, "spread": spread}
        inputs, targets = self._inputs(state, rows[chosen]), torch.from_numpy(scores[chosen])
        variances = torch.from_numpy(noise[chosen] ** 2)
        parameters = self._kernel.parameters(numbers.shape[1])
        priors = {name: value.clone() for name, value in parameters.items()}

        def negative_log_posterior() -> Tensor:
            factor = _factor(self._kernel(inputs, inputs, parameters), variances, parameters)
            whitened = torch.linalg.solve_triangular(factor, targets[:, None], upper=False)
            loss: Tensor = 0.5 * whitened.square().sum() + factor.diagonal().log().sum()
            for name, value in parameters.items():
                loss = loss + 0.5 * ((value - priors[name]) / _PRIOR_STD[name]).square().sum()
            return loss

        minimize(negative_log_posterior, parameters, self.settings.steps)
        with torch.no_grad():
            factor = _factor(self._kernel(inputs, inputs, parameters), variances, parameters)
            inverse = torch.cholesky_inverse(factor)
            weights = inverse @ targets
            precision = inverse.diagonal()
            left_out = Scores((targets - weights / precision).numpy(), precision.rsqrt().numpy())
        state |= {f"parameters.{name}": value.detach().numpy() for name, value in parameters.items()}
        state |= {"weights": weights.numpy(), "inverse": inverse.numpy()}
        if len(chosen) == len(rows):
            return state, left_out
        mean, std = self._predict_by(state, rows)  # those that were not drawn, the model has not seen
        mean[chosen], std[chosen] = left_out
        return state, Scores(mean, std)

    def _leave_out(self, measured: Measured) -> Scores | None:
        if self.settings.folds < 2:
            return None
        # Predictions of `_fit` leave a score out but not from what the parameters were fitted to, which is too good.
        rows = measured.rows
        n_folds = min(self.settings.folds, len(rows))
        fold = deal(len(rows), n_folds, self.seed)
        mean, std = np.zeros(len(rows)), np.zeros(len(rows))
        for left in range(n_folds):
            seen = fold != left
            state, _ = self._fit(measured.part(seen))
            mean[~seen], std[~seen] = self._predict_by(state, rows[~seen])
        return Scores(mean, std)

    def _predict(self, rows: Rows) -> Scores:
        return self._predict_by(self.state, rows)

    def _errors(self, rows: Rows, std: Floats, standard: Floats) -> Floats:
        del std  # the diagonal of what is computed here
        parameters = {name: torch.from_numpy(value) for name, value in under("parameters.", self.state).items()}
        known, asked = (self._inputs(self.state, one) for one in (self.state["rows"], rows))
        with torch.no_grad():
            covariance = self._kernel(asked, known, parameters)
            explained = covariance @ torch.from_numpy(self.state["inverse"]) @ covariance.T
            left = self._kernel(asked, asked, parameters) - explained
            left.diagonal().add_(float(parameters["noise"].exp()))
            variances, directions = torch.linalg.eigh(left)  # of archs that are equal, some are 0
            root = directions * variances.clamp_min(0).sqrt()
        errors: Floats = standard @ root.numpy().T
        return errors

    def _predict_by(self, state: State, rows: Rows) -> Scores:
        parameters = {name: torch.from_numpy(value) for name, value in under("parameters.", state).items()}
        inputs = self._inputs(state, state["rows"])
        weights, inverse = torch.from_numpy(state["weights"]), torch.from_numpy(state["inverse"])
        noise = float(parameters["noise"].exp())
        means, variances = [np.zeros(0)], [np.zeros(0)]
        with torch.no_grad():
            prior = self._kernel.variance(parameters)
            for start in range(0, len(rows), _BLOCK):
                block = self._inputs(state, rows[start : start + _BLOCK])
                covariance = self._kernel(block, inputs, parameters)
                means.append((covariance @ weights).numpy())
                own = self._kernel.own_variance(block, parameters, prior)
                explained = ((covariance @ inverse) * covariance).sum(dim=1)
                variances.append((own - explained).clamp_min(0).numpy() + noise)
        return Scores(np.concatenate(means), np.sqrt(np.concatenate(variances)))

    def _inputs(self, state: State, rows: Rows) -> tuple[Tensor, Tensor]:
        """Return states one-hot `[n, n_states]` and standardized numbers `[n, n_numbers]`."""
        numbers = (self.encoding.numbers(rows) - state["center"]) / state["spread"]
        return torch.from_numpy(self.encoding.one_hot(rows)), torch.from_numpy(numbers)


class _Kernel:
    """The covariance of archs. What it says of two states of a choice is looked up by products of one-hot matrices."""

    def __init__(self, encoding: Encoding) -> None:
        n_states = encoding.n_states
        self._choice = torch.from_numpy(np.repeat(np.arange(len(n_states)), n_states))
        self._same_choice = (self._choice[:, None] == self._choice).double()
        self._other_state = 1 - torch.eye(len(self._choice), dtype=torch.float64)
        index = torch.from_numpy(np.concatenate([np.arange(n) for n in n_states]))
        # Gap parameters: one between neighboring states, for each kind; `_below` sums those below a state.
        n_of_kind = [n_states[encoding.kinds.index(kind)] for kind in range(max(encoding.kinds) + 1)]
        first = np.cumsum([0, *(max(n - 1, 1) for n in n_of_kind)])
        self._gap_kind = torch.from_numpy(np.repeat(np.arange(len(n_of_kind)), [max(n - 1, 1) for n in n_of_kind]))
        self._below = torch.zeros(len(self._choice), int(first[-1]), dtype=torch.float64)
        for state, choice in enumerate(self._choice.tolist()):
            start = int(first[encoding.kinds[choice]])
            self._below[state, start : start + int(index[state])] = 1.0
        self._n_choices = len(n_states)

    def parameters(self, n_numbers: int) -> Parameters:
        """Return the parameters at the modes of their priors."""
        zeros = partial(torch.zeros, dtype=torch.float64)
        return {
            "amplitudes": torch.tensor([-0.5, -0.5, -1.0, -1.0, -1.0], dtype=torch.float64),
            "rates": zeros(self._n_choices),
            "weights": zeros(self._n_choices),
            "gaps": zeros(self._below.shape[1]),
            "unordered": torch.tensor([-1.0], dtype=torch.float64),
            "lengths": torch.tensor([-1.0, 0.0], dtype=torch.float64),
            "scales": zeros(n_numbers),
            "noise": torch.tensor([-2.5], dtype=torch.float64),
        }

    def __call__(self, a: tuple[Tensor, Tensor], b: tuple[Tensor, Tensor], parameters: Parameters) -> Tensor:
        """Return the covariances `[n_a, n_b]` of archs."""
        alone, squared, distance = self._tables(parameters)
        amplitudes = parameters["amplitudes"].exp()
        (states_a, numbers_a), (states_b, numbers_b) = a, b
        first = states_a @ alone @ states_b.T
        pairs = first.square() - states_a @ squared @ states_b.T
        covariance = amplitudes[0] * first + amplitudes[1] * pairs / self._pairs(parameters)
        covariance = covariance + amplitudes[2] * (-(states_a @ distance @ states_b.T)).exp()
        if not numbers_a.shape[1]:
            return covariance
        scales = parameters["scales"].exp()
        numbers_a, numbers_b, n = numbers_a * scales, numbers_b * scales, numbers_a.shape[1]
        product = numbers_a @ numbers_b.T
        far = numbers_a.square().sum(dim=1)[:, None] + numbers_b.square().sum(dim=1) - 2 * product
        far = (far / n).clamp_min(1e-12).sqrt() * parameters["lengths"][1].exp()
        return covariance + amplitudes[3] * product / n + amplitudes[4] * _matern(far)

    def variance(self, parameters: Parameters) -> Tensor:
        """Return the variance of an arch, but for the part that is linear in its numbers."""
        amplitudes = parameters["amplitudes"].exp()
        total = amplitudes[:3].sum()
        return total + amplitudes[4] if len(parameters["scales"]) else total

    def own_variance(self, inputs: tuple[Tensor, Tensor], parameters: Parameters, variance: Tensor) -> Tensor:
        """Return the variances `[n]` of archs."""
        numbers = inputs[1] * parameters["scales"].exp()
        linear = parameters["amplitudes"][3].exp() * numbers.square().sum(dim=1) / max(numbers.shape[1], 1)
        return variance + linear

    def _pairs(self, parameters: Parameters) -> Tensor:
        weights = parameters["weights"].softmax(0)
        return (1 - weights.square().sum()).clamp_min(1e-3)

    def _tables(self, parameters: Parameters) -> tuple[Tensor, Tensor, Tensor]:
        """Return tables over pairs of states: weighted similarity, its square, and distance; 0 between choices."""
        gaps = parameters["gaps"].exp()
        of_kind = torch.zeros(int(self._gap_kind.max()) + 1, dtype=torch.float64).index_add(0, self._gap_kind, gaps)
        position = self._below @ (gaps / of_kind[self._gap_kind])
        unordered = parameters["unordered"].sigmoid()
        distance = (1 - unordered) * (position[:, None] - position).abs() + unordered * self._other_state
        distance = distance * parameters["rates"].exp()[self._choice][:, None] * self._same_choice
        weights = parameters["weights"].softmax(0)[self._choice][:, None]
        alone = _matern(distance) * self._same_choice * weights
        return alone, alone.square(), distance * parameters["lengths"][0].exp()


def _matern(distance: Tensor) -> Tensor:
    """Matern kernel of smoothness 3/2 with unit length, without the factor of the root of 3."""
    return (1 + distance) * (-distance).exp()


def _factor(covariance: Tensor, variances: Tensor, parameters: Parameters) -> Tensor:
    """Return the Cholesky factor of the covariance of measured scores."""
    noise = parameters["noise"].exp() + variances + _JITTER
    factor: Tensor = torch.linalg.cholesky(covariance + noise.diag_embed())
    return factor
