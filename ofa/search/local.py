"""Local search: from the best arch to its neighbors, again and again (White et al., 2020; arXiv 2005.02960)."""

import numpy as np
from pydantic import Field

from ofa.core.config import Config
from ofa.search.algorithm import Algorithm, State
from ofa.search.pareto import non_dominated
from ofa.space.arch import Rows


class LocalSettings(Config):
    """Settings of the search `local`."""

    initial: int = Field(10, ge=1, le=100_000)
    """Random archs from the best of which each climb starts."""


class Local(Algorithm):
    """Climbs from the best of some random archs: the neighbors of the best arch differ from it in one choice.

    A better arch is climbed from at once. Where no neighbor is left, the next best arch of the front is climbed from;
    without one, a new climb starts.
    """

    name = "local"
    Settings = LocalSettings
    settings: LocalSettings
    _first = 0
    """Position, among the archs told, of the first one of this climb."""

    def _propose(self, n: int) -> Rows:
        climb = slice(self._first, None)
        if len(self.rows) - self._first >= self.settings.initial:
            for top in self.best(climb, self._n_tops(climb)):
                around = self._not_seen(self.space.neighbors(self.rows[climb][top]))
                if len(around):
                    return self.rng.permutation(around)[:n]
            self._first = len(self.rows)
        return self._random(n)

    def _n_tops(self, climb: slice) -> int:
        """Return how many archs are on the front of a climb; 1 if none is feasible."""
        values = self.values[climb]
        feasible = self.problem.excess(values) <= 0
        return int(non_dominated(self.problem.losses(values[feasible])).sum()) or 1

    def state(self) -> State:
        """Return everything that `restore` needs, by name."""
        return super().state() | {"first": np.array([self._first])}

    def restore(self, state: State) -> None:
        """Continue where another search was."""
        super().restore(state)
        self._first = int(state["first"][0])
