"""The predictor that archs left out choose: the best of several, or a weighted mean of them (Wolpert, 1992)."""

import numpy as np
from pydantic import Field, field_validator
from scipy.optimize import nnls

from ofa.core.plugins import plugin_names
from ofa.predict.encoding import Encoding
from ofa.predict.metrics import rank_correlation
from ofa.predict.predictor import (
    GROUP,
    Predictor,
    PredictorSettings,
    Scores,
    State,
    calibration_factor,
    create,
    under,
)
from ofa.predict.warp import Floats
from ofa.space.arch import Rows

_LEAST_GAIN = 0.002
"""Kendall's tau by which a mean must beat the best model alone."""


class AutoSettings(PredictorSettings):
    """Settings of the predictor `auto`."""

    candidates: tuple[str, ...] = Field(("gp", "ridge", "mlp", "trees"), min_length=1, strict=False)
    """Predictors to choose from."""

    @field_validator("candidates")
    @classmethod
    def _check(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        known = [name for name in plugin_names(GROUP) if name != "auto"]
        if unknown := [name for name in names if name not in known]:
            raise ValueError(f"there is no predictor {unknown[0]!r}; choose from {', '.join(known)}")
        return tuple(dict.fromkeys(names))


class Auto(Predictor):
    """A weighted mean of predictors, on the scale that suits the best of them.

    Every arch is predicted by models that have not seen it. The weights, none of them negative, are those whose mean
    is nearest to the measured accuracies; if the best model alone ranks as well, it is used alone.
    """

    name = "auto"
    Settings = AutoSettings

    def __init__(self, encoding: Encoding, settings: AutoSettings, *, seed: int = 0) -> None:
        super().__init__(encoding, settings, seed=seed)
        self.members: dict[str, Predictor] = {
            name: create(name, encoding, seed=seed, warp=settings.warp) for name in settings.candidates
        }

    @property
    def weights(self) -> dict[str, float]:
        """The share of each member in the mean; members without a share are left out."""
        return {name: float(x[0]) for name, x in under("weight.", self.state).items()}

    def _learn(self, rows: Rows, top1_percent: Floats, noise_percent: Floats) -> None:
        for member in self.members.values():
            member.fit(rows, top1_percent, noise_percent)
        tau = {name: rank_correlation(one.left_out.mean, top1_percent) for name, one in self.members.items()}
        best = max(tau, key=lambda name: tau[name])
        self.warp = self.members[best].warp
        scores = self.warp(top1_percent)
        left_out = {name: self._on_own_scale(one, one.left_out) for name, one in self.members.items()}
        shares, _ = nnls(np.stack([one.mean for one in left_out.values()], axis=1), scores)
        weights = {name: float(x / shares.sum()) for name, x in zip(left_out, shares, strict=True) if x > 0}
        if not weights or rank_correlation(_mean(left_out, weights).mean, top1_percent) < tau[best] + _LEAST_GAIN:
            weights = {best: 1.0}
        self.state = {f"weight.{name}": np.array([x]) for name, x in weights.items()}
        self.left_out = _mean(left_out, weights)
        self.calibration = calibration_factor(scores, self.left_out)

    def again(self) -> Predictor:
        """Return one that chooses among the members with a share, which is quicker to fit."""
        settings = self.settings.model_dump() | {"candidates": tuple(self.weights) or self.settings.candidates}
        return create(self.name, self.encoding, seed=self.seed, **settings)

    def arrays(self) -> State:
        """Return everything that was fitted, by name; of the members, those with a share."""
        arrays = super().arrays()
        for name in self.weights:
            arrays |= {f"members.{name}.{key}": array for key, array in self.members[name].arrays().items()}
        return arrays

    def restore(self, arrays: State) -> None:
        """Take over what another one returned from `arrays`."""
        super().restore(arrays)
        for name in self.weights:
            self.members[name].restore(under(f"members.{name}.", arrays))

    def _predict(self, rows: Rows) -> Scores:
        weights = self.weights
        of_members = {
            name: self._on_own_scale(self.members[name], self.members[name]._predict(rows)) for name in weights
        }
        return _mean(of_members, weights)

    def _on_own_scale(self, member: Predictor, scores: Scores) -> Scores:
        """Return a member's scores on the scale of this predictor."""
        std = scores.std * member.calibration
        low, mean, high = (self.warp(member.warp.inverse(scores.mean + k * std)) for k in (-1, 0, 1))
        return Scores(mean, np.maximum((high - low) / 2, 1e-9))


def _mean(scores: dict[str, Scores], weights: dict[str, float]) -> Scores:
    mean = sum(weights[name] * scores[name].mean for name in weights)
    variance = sum(weights[name] * scores[name].std ** 2 for name in weights)
    return Scores(np.asarray(mean), np.sqrt(variance))
