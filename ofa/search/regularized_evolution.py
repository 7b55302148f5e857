"""Ageing evolution (Real et al., 2019; arXiv 1802.01548): tournaments choose parents, and the oldest die."""

import numpy as np
from pydantic import Field

from ofa.core.config import Config
from ofa.search.algorithm import Algorithm
from ofa.space.arch import Rows


class RegularizedEvolutionSettings(Config):
    """Settings of the search `regularized_evolution`."""

    population: int = Field(50, ge=1, le=100_000)
    """The youngest archs, which can have children; the first ones are random."""
    tournament: int = Field(10, ge=1, le=100_000)
    """Archs of the population, drawn at random, of which the best has a child."""


class RegularizedEvolution(Algorithm):
    """A child differs from its parent in one choice.

    With several objectives or with constraints, the best of a tournament is the first in the order of NSGA-II.
    """

    name = "regularized_evolution"
    Settings = RegularizedEvolutionSettings
    settings: RegularizedEvolutionSettings

    def _propose(self, n: int) -> Rows:
        n_random = max(self.settings.population - len(self.rows), 0)
        rows = self._random(min(n, n_random))
        if len(rows) == n or not len(self.rows):
            return rows
        young = slice(-self.settings.population, None)
        population = self.rows[young]
        place = np.empty(len(population), dtype=np.int64)  # of each arch of the population, 0 for the best
        place[self.best(young)] = np.arange(len(population))

        def children(n: int) -> Rows:
            drawn = self.rng.integers(len(population), size=(n, self.settings.tournament))
            winners = drawn[np.arange(n), place[drawn].argmin(axis=1)]
            return self.space.mutate_one(population[winners], self.rng)

        rows = np.concatenate([rows, self._new(n - len(rows), children)])
        return rows if len(rows) == n else np.concatenate([rows, self._random(n)])  # all children were seen
