"""What a search optimizes, under which constraints, and the front that it returns."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ofa.core.errors import SearchError
from ofa.search.pareto import Floats
from ofa.space.arch import Rows

Function = Callable[[Rows], Floats]


@dataclass(frozen=True)
class Objective:
    """A function from rows `[n, n_choices]` to finite values `[n]` to minimize, or to maximize.

    Without a function, values are measured, and the search is told them.
    """

    name: str
    function: Function | None = None
    maximize: bool = False


@dataclass(frozen=True)
class Constraint:
    """A function from rows `[n, n_choices]` to values `[n]` that must be at most `limit`, or values that are told.

    Raises:
        SearchError: `limit` is NaN or minus infinity.
    """

    name: str
    function: Function | None = None
    limit: float = math.inf

    def __post_init__(self) -> None:
        if not self.limit > -math.inf:
            raise SearchError(f"{self.name!r} has the limit {self.limit}; give a number, or inf for no limit")


@dataclass(frozen=True)
class Problem:
    """Objectives and constraints; their values are the columns `[n, n_objectives + n_constraints]` in this order.

    Raises:
        SearchError: there is no objective.
    """

    objectives: tuple[Objective, ...]
    constraints: tuple[Constraint, ...] = ()

    def __post_init__(self) -> None:
        if not self.objectives:
            raise SearchError("a search needs at least one objective")

    @classmethod
    def of(cls, objectives: Sequence[Objective | str], constraints: Sequence[Constraint]) -> "Problem":
        """Return the problem of objectives, of which those given by name are told and minimized."""
        return cls(tuple(Objective(one) if isinstance(one, str) else one for one in objectives), tuple(constraints))

    @property
    def columns(self) -> tuple[Objective | Constraint, ...]:
        """The objectives, then the constraints."""
        return (*self.objectives, *self.constraints)

    def evaluate(self, rows: Rows) -> Floats:
        """Return the values of all functions `[n, n_objectives + n_constraints]`.

        Raises:
            SearchError: an objective or constraint has no function, or see `evaluate`.
        """
        return np.stack([evaluate(column, rows) for column in self.columns], axis=1)

    def losses(self, values: Floats) -> Floats:
        """Return the objectives `[n, n_objectives]`, all to be minimized, of values or of losses again."""
        signs = [-1.0 if objective.maximize else 1.0 for objective in self.objectives]
        return values[:, : len(signs)] * signs

    def excess(self, values: Floats) -> Floats:
        """Return the sum of the violations `[n]` of all constraints."""
        total = np.zeros(len(values))
        for constraint, column in zip(self.constraints, values.T[len(self.objectives) :], strict=True):
            total += violation(constraint, column)
        return total


@dataclass(frozen=True)
class Front:
    """The feasible archs, of all that a search evaluated, that no other one dominates.

    Different canonical rows `[n, n_choices]`, best first in the first objective, with values `[n, n_objectives]`.
    """

    rows: Rows
    values: Floats
    n_evaluated: int


def evaluate(column: Objective | Constraint, rows: Rows) -> Floats:
    """Return the values `[n]` of an objective or a constraint.

    Raises:
        SearchError: it has no function, or there is not one value for each row, one is NaN, or one of an objective is
            infinite.
    """
    if column.function is None:
        raise SearchError(f"{column.name!r} has no function; give one, or use ofa.search.create and tell its values")
    values = np.asarray(column.function(rows), dtype=np.float64)
    if values.shape != (len(rows),):
        raise SearchError(f"{column.name!r} has shape {values.shape}; return one value for each of {len(rows)} archs")
    check_values(column, values)
    return values


def check_values(column: Objective | Constraint, values: Floats) -> None:
    """Raise SearchError if a value `[n]` is NaN, or one of an objective is infinite."""
    broken = ~np.isfinite(values) if isinstance(column, Objective) else np.isnan(values)
    if broken.any():
        raise SearchError(f"{column.name!r} is {values[broken][0]} for {broken.sum()} archs; return finite values")


def violation(constraint: Constraint, values: Floats) -> Floats:
    """Return by how much values `[n]` exceed the limit, as a share of it, or 0."""
    excess = np.subtract(values, constraint.limit, out=np.zeros(len(values)), where=values > constraint.limit)
    return excess / max(abs(constraint.limit), 1e-12)
