"""A Gaussian process over features alone, so that the accuracies of one family tell of another's."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from pydantic import Field
from sklearn.gaussian_process.kernels import Kernel

from ofa.core.errors import PredictorError
from ofa.core.gaussian_process import fit, smooth_and_linear
from ofa.predict.encoding import Encoding, Feature
from ofa.predict.ensemble import Ensemble, EnsembleSettings
from ofa.predict.predictor import Measured, State, as_encoding
from ofa.predict.warp import Floats
from ofa.space.arch import Rows

_BLOCK = 4096


class SummarySettings(EnsembleSettings):
    """Settings of the predictor `summary`."""

    max_archs: int = Field(300, ge=2, le=5000)
    """Archs that each member is fitted to; of more, as many are drawn. Time grows with the third power."""


class Summary(Ensemble):
    """Reads the logarithms of features, such as resolution, depth, MACs and parameters, and no choices.

    So it tells fewer archs apart than other predictors do, but what it learned of one space holds in any other that has
    these features. PredictorError if there are none.
    """

    name = "summary"
    Settings = SummarySettings
    settings: SummarySettings

    def __init__(self, encoding: Encoding, settings: SummarySettings, *, seed: int = 0) -> None:
        if not encoding.features:
            raise PredictorError(
                "predictor 'summary' reads features alone; give it some, such as macs_m and resolution"
            )
        super().__init__(encoding, settings, seed=seed)

    def moved_to(self, subject: Any, features: Mapping[str, Feature]) -> "Summary":
        """Return this fitted predictor for the archs of another space or family.

        Raises:
            PredictorError: `features` are not those that it reads.
        """
        if features.keys() != self.encoding.features.keys():
            names = (", ".join(sorted(one)) for one in (self.encoding.features, features))
            raise PredictorError("a summary of {} cannot be moved to {}; give the same features".format(*names))
        moved = Summary(as_encoding(subject, features), self.settings, seed=self.seed)
        moved.restore(self.arrays())
        return moved

    def _fit_member(self, measured: Measured, seed: int) -> State:
        chosen = np.random.default_rng(seed).permutation(len(measured.rows))[: self.settings.max_archs]
        features, scores = self._features(measured.rows[chosen]), measured.scores[chosen]
        center, spread = features.mean(axis=0), np.maximum(features.std(axis=0), 1e-6)
        inputs, mean = (features - center) / spread, scores.mean()
        model = fit(_kernel(inputs.shape[1]), inputs, scores - mean, alpha=1e-8 + measured.noise[chosen] ** 2)
        return {
            "inputs": inputs,
            "center": center,
            "spread": spread,
            "kernel": model.kernel_.theta,
            "weights": model.alpha_,
            "mean": np.array([mean]),
        }

    def _predict_member(self, state: State, rows: Rows) -> Floats:
        return _predict(state, self._features(rows))

    def _predict_members(self, states: list[State], rows: Rows) -> Floats:
        features = self._features(rows)  # once for all members
        return np.stack([_predict(state, features) for state in states])

    def _features(self, rows: Rows) -> Floats:
        columns = [self.encoding.features[name](rows) for name in sorted(self.encoding.features)]
        return np.log2(np.maximum(np.stack(columns, axis=1), 1e-9))


def _predict(state: State, features: Floats) -> Floats:
    inputs, asked = state["inputs"], (features - state["center"]) / state["spread"]
    kernel = _kernel(inputs.shape[1]).clone_with_theta(state["kernel"])
    parts = [kernel(asked[i : i + _BLOCK], inputs) @ state["weights"] for i in range(0, len(asked), _BLOCK)]
    predicted: Floats = state["mean"] + np.concatenate([np.zeros(0), *parts])
    return predicted


def _kernel(n_features: int) -> Kernel:
    return smooth_and_linear(n_features, 1e-2, 10.0)
