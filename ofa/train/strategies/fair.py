"""Strict fairness: every value of every choice is trained equally often."""

from __future__ import annotations

from typing import Literal

import numpy as np

from ofa.space.arch import Arch
from ofa.train.strategies.base import Draw, Phase


class Fair(Phase):
    """As many archs as the largest choice has values, in which each of its values is there once (FairNAS, 1907.01845).

    A choice with fewer values goes on through its next permutation, so at no time has any of its values been drawn more
    than once oftener than another.
    """

    strategy: Literal["fair"]

    def archs(self, draw: Draw) -> list[Arch]:
        """The k-th arch of a training takes entry k of an endless list of permutations, one list for each choice."""
        n_values = [len(choice.values) for choice in draw.space.choices]
        first = draw.step * max(n_values)
        rows = np.empty((max(n_values), len(n_values)), dtype=np.int64)
        for column, n in enumerate(n_values):
            for i in range(len(rows)):
                turn, place = divmod(first + i, n)
                rows[i, column] = np.random.default_rng((draw.seed, column, turn)).permutation(n)[place]
        return [draw.space.decode(row) for row in draw.space.canonical(rows)]
