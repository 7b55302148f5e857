"""Evolutionary search for the front of a search space under constraints.

NSGA-II (Deb et al., 2002) over index matrices: objectives and constraints are functions from rows
`[n, n_choices]` to floats `[n]`. The search knows nothing of networks, and its budget bounds it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ofa.search.pareto import Floats
from ofa.space.arch import Rows


@dataclass(frozen=True)
class Objective:
    """What to make small, or large if `maximize`."""

    name: str
    function: Callable[[Rows], Floats]
    maximize: bool = False


@dataclass(frozen=True)
class Constraint:
    """A value that must stay at or below a limit, such as a latency in milliseconds."""

    name: str
    function: Callable[[Rows], Floats]
    limit: float


@dataclass(frozen=True)
class Front:
    """Archs that no other arch seen beats in all objectives.

    Attributes:
        rows: `[n, n_choices]`, sorted by the first objective, each once.
        values: `[n, n_objectives]`.
        n_evaluated: how many archs were looked at.
    """

    rows: Rows
    values: Floats
    n_evaluated: int
