"""NSGA-II (Deb et al., 2002) over index matrices: the fastest over predictions."""

from typing import ClassVar

import numpy as np
from pydantic import Field

from ofa.core.config import Config
from ofa.search.algorithm import LISTED, TRIES, Algorithm
from ofa.search.pareto import Floats
from ofa.space.arch import Rows
from ofa.space.search_space import SearchSpace


class Nsga2Settings(Config):
    """Settings of the search `nsga2`."""

    population: int = Field(200, ge=1, le=100_000)
    """Archs that survive each generation."""
    mutate_probability: float | None = Field(None, ge=0, le=1)
    """Probability with which a mutant differs from its parent in a choice; by default 0.1, and in spaces of fewer than
    10 choices, one over their number."""


class Nsga2(Algorithm):
    """The best archs survive, front by front, and have children: crossovers and mutants.

    Only survivors are remembered, so that millions of archs can be asked for; some of them twice.
    """

    name = "nsga2"
    Settings = Nsga2Settings
    settings: Nsga2Settings
    remembers: ClassVar[bool] = False

    def _propose(self, n: int) -> Rows:
        given, n_random = self.settings.mutate_probability, self.settings.population - self.n_told
        probability = max(0.1, 1 / len(self.space.choices)) if given is None else given
        for _ in range(TRIES):
            if n_random > 0:
                children = self._not_parents(self.space.sample(min(n, n_random), self.rng))
            else:
                children = breed(self.space, self.rows, self.rng, n, probability)
            if len(children):
                return children
        return self._not_parents(self.space.sample(n, self.rng) if self.space.size > LISTED else self._all())

    def _not_parents(self, rows: Rows) -> Rows:
        """Return the different ones of canonical rows that are not in the population."""
        return self.space.distinct(np.concatenate([self.rows, rows]))[len(self.rows) :]

    def _learn(self, rows: Rows, values: Floats) -> None:
        self.rows, self.values = np.concatenate([rows, self.rows]), np.concatenate([values, self.values])
        different = self.space.first_appearances(self.rows)
        survivors = different[self.best(different, self.settings.population)]
        self.rows, self.values = self.rows[survivors], self.values[survivors]


def breed(space: SearchSpace, parents: Rows, rng: np.random.Generator, n: int, mutate_probability: float) -> Rows:
    """Return the different archs among `n` children that are not parents; half are crossovers, half mutants.

    The parents `[n_parents, n_choices]` are different canonical rows, the best first: of two that are drawn, the first
    becomes a parent, as in the paper.
    """
    mothers, fathers = parents[rng.integers(len(parents), size=(2, n, 2)).min(axis=2)]
    crossed = space.crossover(mothers[: n // 2], fathers[: n // 2], rng)
    mutants = space.mutate(mothers[n // 2 :], rng, mutate_probability)
    different = space.distinct(np.concatenate([parents, crossed, mutants]))
    return different[len(parents) :]  # the parents come first
