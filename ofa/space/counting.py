"""The exact number of archs of a search space, without listing them."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache, partial
from typing import Any

Indices = Callable[[int, Mapping[int, int]], Iterable[int]]
Factor = tuple[list[int], Callable[..., int]]  # the columns that it reads, and the count for their indices


def count_assignments(parents: Sequence[set[int]], indices: Indices) -> int:
    """Count the ways to assign an index to each column, by variable elimination from the last column to the first.

    `indices(column, fixed)` are the possible indices of a column, given those of its parents, earlier columns.
    """
    factors: list[Factor] = []
    for column in reversed(range(len(parents))):
        readers = [factor for factor in factors if column in factor[0]]
        scope = sorted(parents[column].union(*(columns for columns, _ in readers)) - {column})
        factors = [factor for factor in factors if column not in factor[0]]
        factors.append((scope, cache(partial(_sum_out, column, scope, readers, indices))))
    return math.prod(count() for _, count in factors)


def _sum_out(column: int, scope: list[int], readers: list[Factor], indices: Indices, *values: int) -> Any:
    """Return the number of assignments to a column and the later ones, given the indices of a scope."""
    fixed, total = dict(zip(scope, values, strict=True)), 0
    for index in indices(column, fixed):
        fixed[column] = index
        total += math.prod(count(*(fixed[other] for other in columns)) for columns, count in readers)
    return total
