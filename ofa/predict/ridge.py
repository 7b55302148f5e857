"""Linear regression on choices, on what sums them up, and on pairs of these, with a penalty chosen by leaving out."""

import numpy as np
from pydantic import Field
from sklearn.linear_model import RidgeCV

from ofa.predict.ensemble import Ensemble, EnsembleSettings
from ofa.predict.predictor import Measured, State
from ofa.predict.warp import Floats
from ofa.space.arch import Rows


class RidgeSettings(EnsembleSettings):
    """Settings of the predictor `ridge`."""

    max_pairs: int = Field(0, ge=0, le=5000)
    """Products of two states of different choices that are learned, too, drawn from all; 0 for none."""


class Ridge(Ensemble):
    """Ridge regression; fast, and hard to beat where choices do not depend on each other."""

    name = "ridge"
    Settings = RidgeSettings
    settings: RidgeSettings

    def _fit_member(self, measured: Measured, seed: int) -> State:
        del seed  # there is one solution
        features = self._features(measured.rows)
        center, spread = features.mean(axis=0), features.std(axis=0)
        spread[spread < 1e-9] = np.inf
        model = RidgeCV(alphas=np.logspace(-2, 5, 22))
        model.fit((features - center) / spread, measured.scores, sample_weight=measured.weights())
        coefficients = model.coef_ / spread
        return {"coefficients": coefficients, "intercept": np.array([model.intercept_ - coefficients @ center])}

    def _predict_member(self, state: State, rows: Rows) -> Floats:
        predicted: Floats = self._features(rows) @ state["coefficients"] + state["intercept"]
        return predicted

    def _features(self, rows: Rows) -> Floats:
        one_hot, numbers = self.encoding.one_hot(rows), self.encoding.numbers(rows)
        n, rng = one_hot.shape[1], np.random.default_rng(self.seed)
        choice = np.repeat(np.arange(len(self.encoding.n_states)), self.encoding.n_states)
        first, second = np.triu_indices(n)
        different = choice[first] != choice[second]
        first, second = first[different], second[different]
        drawn = np.sort(rng.permutation(len(first))[: self.settings.max_pairs])
        return np.concatenate([one_hot, numbers, one_hot[:, first[drawn]] * one_hot[:, second[drawn]]], axis=1)
