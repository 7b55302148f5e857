"""Bayesian optimization: a predictor says which archs are worth measuring next (as in BANANAS, arXiv 1910.11858)."""

from dataclasses import replace
from typing import Any, Literal, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator
from scipy.stats import norm

from ofa.core.config import Config
from ofa.core.errors import PredictorError, SearchError
from ofa.predict.predictor import Predictor
from ofa.predict.predictor import check_settings as check_predictor_settings
from ofa.predict.predictor import create as create_predictor
from ofa.predict.warp import Warp
from ofa.search.algorithm import Algorithm, create
from ofa.search.pareto import Floats, hypervolume_gain, non_dominated
from ofa.search.problem import Constraint, Objective, evaluate
from ofa.space.arch import Rows

Column = Objective | Constraint
Positions = NDArray[np.int64]

_DRAWS, _JOINT_DRAWS, _GENERATIONS = 32, 256, 20
_QUICK = {"gp": {"folds": 0}}
"""Settings of predictors that are fitted often, and whose intervals are only compared with each other."""
_SHORT_LIST = 500
"""Archs with the largest expected gain among which each next one is chosen."""


class BayesianSettings(Config):
    """Settings of the search `bayesian`."""

    initial: int = Field(10, ge=2, le=100_000)
    """Random archs that are measured before the first prediction."""
    predictor: str = "gp"
    """The model of what is told; see `ofa.predict.create`."""
    predictor_settings: dict[str, Any] = Field(default_factory=dict)
    """Settings of that predictor."""
    acquisition: Literal["expected_improvement", "thompson"] = "expected_improvement"
    """What makes an arch worth measuring: the gain that is expected of it, over the best arch or in the area over the
    front of two objectives, or to be the best in a world drawn from the predictions, as always from 3 objectives on."""
    pool: int = Field(20_000, ge=_GENERATIONS, le=1_000_000)
    """Archs to choose from: the whole space if it has no more, otherwise random ones and the best ones' descendants."""

    @model_validator(mode="after")
    def _check_predictor(self) -> Self:
        try:
            check_predictor_settings(self.predictor, self.predictor_settings)
        except PredictorError as error:
            raise ValueError(str(error)) from error
        return self


class Bayesian(Algorithm):
    """Measures the archs of which it expects most.

    Objectives and constraints that have functions are computed instead of predicted: accuracy may be told, and latency
    be read from a table.
    """

    name = "bayesian"
    Settings = BayesianSettings
    settings: BayesianSettings
    _whole: Rows | None = None

    def _begin(self) -> None:
        try:
            self._predictor()  # which may need what the search does not have
        except PredictorError as error:
            raise SearchError(f"search algorithm {self.name!r}: {error}") from error

    def _propose(self, n: int) -> Rows:
        if n_random := min(n, max(self.settings.initial - len(self.rows), 0)):
            return self._random(n_random)
        columns = zip(self.problem.columns, self.values.T, strict=True)
        surrogates = [self._surrogate(column, told) for column, told in columns]
        pool = self._not_seen(self._pool(surrogates))
        if not len(pool):
            return self._random(n)
        predicted = [surrogate.predict(pool) for surrogate in surrogates]
        mean, std = (np.stack(arrays, axis=1) for arrays in zip(*predicted, strict=True))
        n_objectives = len(self.problem.objectives)
        if self.settings.acquisition == "thompson" or n_objectives > 2:
            return pool[self._draw(surrogates, mean, std, n)]
        feasible = np.ones(len(pool))  # probability that all limits are met
        for i, surrogate in enumerate(surrogates[n_objectives:], n_objectives):
            feasible *= norm.cdf(surrogate.limit, mean[:, i], std[:, i])
        if n_objectives == 2:
            return pool[self._expected_area(surrogates[:2], mean[:, :2], std[:, :2], feasible, n)]
        gain = feasible * self._expected_improvement(surrogates[0], mean[:, 0], std[:, 0])
        short = np.argsort(-gain, kind="stable")[: max(n, _SHORT_LIST)]
        return pool[short[self._batch(surrogates[0], pool[short], feasible[short], n)]]

    def _surrogate(self, column: Column, told: Floats) -> "_Surrogate":
        if column.function is not None:
            return _Surrogate(column, None, None)
        predictor, told = self._predictor(int(self.rng.integers(2**31))), _finite(told)
        warp = Warp.ranks(told)
        return _Surrogate(column, warp, predictor.fit(self.rows, warp(told)))

    def _predictor(self, seed: int = 0) -> Predictor:
        """Return a predictor that is not fitted; PredictorError if it cannot read this space."""
        name = self.settings.predictor
        settings = {"warp": "none"} | _QUICK.get(name, {}) | self.settings.predictor_settings
        return create_predictor(name, self.encoding, seed=seed, **settings)

    def _pool(self, surrogates: list["_Surrogate"]) -> Rows:
        if self.space.size <= self.settings.pool:
            if self._whole is None:
                self._whole = self._all()
            return self._whole
        n, n_objectives = self.settings.pool // _GENERATIONS, len(self.problem.objectives)
        objectives = [
            replace(objective, function=surrogate.mean)
            for objective, surrogate in zip(self.problem.objectives, surrogates[:n_objectives], strict=True)
        ]
        constraints = [
            replace(constraint, function=surrogate.mean, limit=surrogate.limit)
            for constraint, surrogate in zip(self.problem.constraints, surrogates[n_objectives:], strict=True)
        ]
        start = self.rows[self.best(slice(None), n // 2)]
        inner = create("nsga2", self.encoding, objectives, constraints, rng=self.rng, start=start, population=n)
        generations = [inner.step(n) for _ in range(_GENERATIONS)]
        return self.space.distinct(np.concatenate([start, *generations]))

    def _feasible(self) -> Floats:
        """Return the values `[n, n_columns]` of the archs told that meet the constraints."""
        return self.values[self.problem.excess(self.values) <= 0]

    def _best_score(self, surrogate: "_Surrogate") -> tuple[float, float]:
        """Return 1 if a larger objective is better, otherwise -1, and that times the best score that was told."""
        sign = -float(self.problem.losses(np.ones((1, 1)))[0, 0])
        scores = sign * surrogate.score(self._feasible()[:, 0])
        return sign, float(scores.max(initial=-np.inf))

    def _expected_improvement(self, surrogate: "_Surrogate", mean: Floats, std: Floats) -> Floats:
        """Return by how much archs are expected to beat the best one (Jones et al., 1998)."""
        sign, best = self._best_score(surrogate)
        if best == -np.inf:
            return np.ones(len(mean))
        better = sign * mean - best
        z = better / std
        gain: Floats = better * norm.cdf(z) + std * norm.pdf(z)
        return gain

    def _batch(self, surrogate: "_Surrogate", rows: Rows, feasible: Floats, n: int) -> Positions:
        """Return which `n` archs, the most promising first, are worth measuring together.

        Each is the one that is expected to beat those chosen before by most (Ginsbourger et al., 2010, 3.2), in joint
        draws: similar archs gain in the same draws, so one of them is enough. `feasible` are the probabilities
        `[n_archs]` that all limits are met.
        """
        sign, best = self._best_score(surrogate)
        if n == 1 or surrogate.predictor is None or best == -np.inf:
            return np.arange(min(n, len(rows)))
        drawn = sign * surrogate.predictor.draw(rows, _JOINT_DRAWS, self.rng)
        chosen, left, top = list[int](), feasible + 1e-12, np.full((_JOINT_DRAWS, 1), best)
        while len(chosen) < min(n, len(rows)):
            gain = left * (np.maximum(drawn - top, 0).mean(axis=0) + 1e-12)
            chosen.append(int(gain.argmax()))
            left[chosen[-1]] = 0.0
            top = np.maximum(top, drawn[:, chosen[-1:]])
        return np.array(chosen, dtype=np.int64)

    def _expected_area(
        self, surrogates: list["_Surrogate"], mean: Floats, std: Floats, feasible: Floats, n: int
    ) -> Positions:
        """Return the archs that are expected to add most to the area that the front dominates, one after another.

        `feasible` are the probabilities `[n_archs]` that all limits are met.
        """
        told = self._feasible()
        front = self.problem.losses(told if len(told) else self.values)
        corner = front.max(axis=0) + 0.1 * np.ptp(front, axis=0)
        reference = (float(corner[0]), float(corner[1]))
        draws = mean + std * self.rng.standard_normal((_DRAWS, 1, 2))
        drawn = [self.problem.losses(_values(surrogates, one)) for one in draws]
        expected = self.problem.losses(_values(surrogates, mean))
        front = front if len(told) else front[:0]
        chosen, among, unknown = list[int](), np.arange(len(mean)), (std / std.max(axis=0)).mean(axis=1)
        while len(chosen) < n and len(among):
            gain = np.mean([hypervolume_gain(one[among], front, reference) for one in drawn], axis=0)
            gain = feasible[among] * (gain + 1e-12 * unknown[among])  # where none gains, what is known least
            order = np.argsort(-gain, kind="stable")
            chosen.append(int(among[order[0]]))
            among = among[order[1 : max(n, _SHORT_LIST) + 1]]
            front = np.concatenate([front, expected[chosen[-1:]]])  # as if it had been measured
        return np.array(chosen, dtype=np.int64)

    def _draw(self, surrogates: list["_Surrogate"], mean: Floats, std: Floats, n: int) -> Positions:
        """Return one of the best archs in each of `n` worlds drawn from the predictions (Thompson sampling)."""
        chosen, left = list[int](), np.ones(len(mean), dtype=bool)
        for _ in range(min(n, len(mean))):
            among = np.flatnonzero(left)
            drawn = _values(surrogates, mean[among] + std[among] * self.rng.standard_normal(mean[among].shape))
            losses, excess = self.problem.losses(drawn), self.problem.excess(drawn)
            tops = np.flatnonzero(excess <= excess.min())
            chosen.append(int(among[self.rng.choice(tops[non_dominated(losses[tops])])]))
            left[chosen[-1]] = False
        return np.array(chosen, dtype=np.int64)


class _Surrogate(NamedTuple):
    """The model of an objective or a constraint, of the normal scores of the values that were told.

    One that has a function needs no model, and keeps its own scale.
    """

    column: Column
    warp: Warp | None
    predictor: Predictor | None

    @property
    def limit(self) -> float:
        """The limit of a constraint on this scale."""
        assert isinstance(self.column, Constraint)
        return float(self.score(np.array([self.column.limit]))[0])

    def score(self, values: Floats) -> Floats:
        """Return values `[n]` on this scale."""
        return values if self.warp is None else self.warp(values)

    def mean(self, rows: Rows) -> Floats:
        """Return the expected scores `[n]`."""
        return self.predict(rows)[0]

    def predict(self, rows: Rows) -> tuple[Floats, Floats]:
        """Return the expected scores and their standard deviations `[n]`."""
        if self.predictor is None:
            return evaluate(self.column, rows), np.full(len(rows), 1e-12)
        predicted = self.predictor.predict(rows)
        return predicted.mean, np.maximum(predicted.std, 1e-12)


def _finite(told: Floats) -> Floats:
    """Return values `[n]`, infinite ones of a constraint as far beyond the others as these lie apart."""
    finite = told[np.isfinite(told)]
    low, high = (finite.min(), finite.max()) if len(finite) else (0.0, 0.0)
    width = (high - low) or 1.0
    return np.clip(told, low - width, high + width)


def _values(surrogates: list[_Surrogate], scores: Floats) -> Floats:
    """Return the values `[n, n_columns]` of scores."""
    columns = zip(surrogates, scores.T, strict=True)
    return np.stack(
        [one if surrogate.warp is None else surrogate.warp.inverse(one) for surrogate, one in columns], axis=1
    )
