"""Predictors that are ensembles: each member is fitted to all archs but a share of its own, which judges it."""

from abc import abstractmethod

import numpy as np
from pydantic import Field

from ofa.predict.predictor import Measured, Model, PredictorSettings, Scores, State, deal, under
from ofa.predict.warp import Floats
from ofa.space.arch import Rows

_LEAST_LEFT_OUT = 10
"""Archs of which some can be left out."""


class EnsembleSettings(PredictorSettings):
    """Settings of predictors that are ensembles."""

    members: int = Field(5, ge=2, le=50)
    """Models whose mean is predicted; each leaves out another share of the archs, by which it is judged."""


class Ensemble(Model):
    """The mean of several models.

    The archs are dealt out to the members; each is fitted to those of the others. So each arch is predicted by a model
    that has not seen it, at no more cost than the ensemble itself.
    """

    settings: EnsembleSettings

    @abstractmethod
    def _fit_member(self, measured: Measured, seed: int) -> State:
        """Return the state of a model that is fitted to scores `[n]`."""

    @abstractmethod
    def _predict_member(self, state: State, rows: Rows) -> Floats:
        """Return the scores `[n]` that a member predicts."""

    def _predict_members(self, states: list[State], rows: Rows) -> Floats:
        """Return the scores `[members, n]` of all members; one after another unless a model knows better."""
        return np.stack([self._predict_member(state, rows) for state in states])

    def _fit(self, measured: Measured) -> tuple[State, Scores]:
        rows, scores, _ = measured
        # So few archs are all seen by all members, and judged as if nothing but their mean had been learned.
        members, too_few = min(self.settings.members, len(rows)), len(rows) < _LEAST_LEFT_OUT
        fold = deal(len(rows), members, self.seed)
        states, left_out = list[State](), np.zeros(len(rows))
        for member in range(members):
            seen = (fold != member) | too_few
            state = self._fit_member(measured.part(seen), self.seed * members + member)
            if not too_few:
                left_out[~seen] = self._predict_member(state, rows[~seen])
            states.append(state)
        rmse = max(float(np.sqrt(np.mean((scores - left_out) ** 2))), 1e-6)
        whole = {f"{i}.{name}": array for i, state in enumerate(states) for name, array in state.items()}
        return whole | {"rmse": np.array([rmse])}, Scores(left_out, np.full(len(rows), rmse))

    def _predict(self, rows: Rows) -> Scores:
        members = range(len({name.partition(".")[0] for name in self.state if "." in name}))
        predicted = self._predict_members([under(f"{member}.", self.state) for member in members], rows)
        # Members that disagree more than usual know less than usual of an arch.
        rmse, spread = float(self.state["rmse"][0]), np.std(predicted, axis=0)
        return Scores(np.mean(predicted, axis=0), np.sqrt(rmse**2 + spread**2))
