"""Strategies: which archs one training step runs. Each is a function of the space and a generator, no state."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ofa.space import Arch, SearchSpace

Strategy = Callable[[SearchSpace, int, np.random.Generator], list[Arch]]
"""`strategy(space, n_random, rng) -> archs`; an arch that comes after the largest is distilled from it."""


def full(space: SearchSpace, n_random: int, rng: np.random.Generator) -> list[Arch]:  # noqa: ARG001
    """The largest network alone: the phase before shrinking (once-for-all, arXiv 1908.09791, 3.3)."""
    return [space.largest]


def sandwich(space: SearchSpace, n_random: int, rng: np.random.Generator) -> list[Arch]:
    """The largest, the smallest and random archs (arXiv 1903.05134, 3.2; BigNAS, arXiv 2003.11142, 3.1)."""
    return [space.largest, space.smallest, *(space.decode(row) for row in space.sample(n_random, rng))]


STRATEGIES: dict[str, Strategy] = {"full": full, "sandwich": sandwich}
