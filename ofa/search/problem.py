"""What a search optimizes, under which constraints, and the front that it returns."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ofa.core.errors import SearchError
from ofa.search.pareto import Floats
from ofa.space.arch import Rows


@dataclass(frozen=True)
class Objective:
    """A function from rows `[n, n_choices]` to finite values `[n]` to minimize, or to maximize."""

    name: str
    function: Callable[[Rows], Floats]
    maximize: bool = False


@dataclass(frozen=True)
class Constraint:
    """A function from rows `[n, n_choices]` to values `[n]` that must be at most `limit`.

    Raises:
        SearchError: `limit` is NaN or minus infinity.
    """

    name: str
    function: Callable[[Rows], Floats]
    limit: float

    def __post_init__(self) -> None:
        if not self.limit > -math.inf:
            raise SearchError(f"{self.name!r} has the limit {self.limit}; give a number, or inf for no limit")


@dataclass(frozen=True)
class Front:
    """The feasible archs, of all that a search evaluated, that no other one dominates.

    Different canonical rows `[n, n_choices]`, best first in the first objective, with values `[n, n_objectives]`.
    """

    rows: Rows
    values: Floats
    n_evaluated: int


def evaluate(function: Objective | Constraint, rows: Rows) -> Floats:
    """Return the values `[n]` of an objective or a constraint.

    Raises:
        SearchError: there is not one value for each row, one is NaN, or one of an objective is infinite.
    """
    values = np.asarray(function.function(rows), dtype=np.float64)
    if values.shape != (len(rows),):
        raise SearchError(f"{function.name!r} has shape {values.shape}; return one value for each of {len(rows)} archs")
    broken = ~np.isfinite(values) if isinstance(function, Objective) else np.isnan(values)
    if broken.any():
        raise SearchError(f"{function.name!r} is {values[broken][0]} for {broken.sum()} archs; return finite values")
    return values


def violation(constraint: Constraint, values: Floats) -> Floats:
    """Return by how much values `[n]` exceed the limit, as a share of it, or 0."""
    excess = np.subtract(values, constraint.limit, out=np.zeros(len(values)), where=values > constraint.limit)
    return excess / max(abs(constraint.limit), 1e-12)
