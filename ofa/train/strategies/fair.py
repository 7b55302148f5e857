"""Strict fairness: every value of every choice is trained equally often."""

from __future__ import annotations

from typing import Literal

import numpy as np

from ofa.space.arch import Arch
from ofa.train.strategies.base import Draw, Phase


class Fair(Phase):
    """Trains each value of each choice once in every step (FairNAS, arXiv 1907.01845).

    A step has as many archs as the largest choice has values. A choice with fewer values continues with its next
    permutation, so the counts of its values never differ by more than one.
    """

    strategy: Literal["fair"]

    def resolution(self, draw: Draw) -> int:
        """Return the largest resolution among the step's archs."""
        return max(int(arch["resolution"]) for arch in self.archs(draw))

    def archs(self, draw: Draw) -> list[Arch]:
        """Return the archs that take the next entries of each choice's endless list of permutations."""
        n_values = [len(choice.values) for choice in draw.space.choices]
        first = draw.step * max(n_values)
        rows = np.empty((max(n_values), len(n_values)), dtype=np.int64)
        for column, n in enumerate(n_values):
            for i in range(len(rows)):
                turn, position = divmod(first + i, n)
                rows[i, column] = np.random.default_rng((draw.seed, column, turn)).permutation(n)[position]
        return [draw.space.decode(row) for row in draw.space.canonical(rows)]
