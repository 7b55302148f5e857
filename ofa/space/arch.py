"""One architecture as a mapping, and the row types that stand for many."""

from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

Value = int | float

Rows = NDArray[np.int64]
"""Archs as an integer matrix `[n, n_choices]`, or one arch as a row `[n_choices]`: indices of values."""


class Arch(Mapping[str, Value]):
    """One architecture: an immutable, hashable mapping from the names of active choices to their values.

    `SearchSpace.arch` and `SearchSpace.decode` create archs that belong to a space. `json.dumps(dict(arch))` is the
    JSON of an arch.
    """

    __slots__ = ("_values",)

    def __init__(self, values: Mapping[str, Value]) -> None:
        self._values = dict(values)

    def __getitem__(self, name: str) -> Value:
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __hash__(self) -> int:
        return hash(frozenset(self._values.items()))

    def __repr__(self) -> str:
        return f"Arch({self._values})"
