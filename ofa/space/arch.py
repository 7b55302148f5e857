"""Search spaces: choices, archs, and sets of archs as integer matrices.

A set of archs is an integer matrix `[n, n_choices]` whose entries are indices into each choice's values,
so sampling, mutation, crossover, costs and predictions are array operations over thousands of archs at
once. `Arch` is the readable view of one row. A choice of a skipped layer is *inactive*: rows hold 0
there and an `Arch` leaves it out, so equal networks have equal rows and equal archs. A choice that *follows*
another is not free: canonical rows hold, and an `Arch` shows, what the other one leads to.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from ofa.core.errors import SpaceError

Value = int | float


Rows = NDArray[np.int64]


class Arch(Mapping[str, Value]):
    """One architecture: a frozen, hashable mapping from choice name to value, active choices only.

    Make one with `SearchSpace.arch`, which checks it, or `SearchSpace.decode`.
    """

    __slots__ = ("_values",)
    _values: dict[str, Value]

    def __init__(self, values: Mapping[str, Value]) -> None:
        object.__setattr__(self, "_values", dict(values))

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"an Arch is frozen; build another with space.arch(dict(arch) | {{{name!r}: {value!r}}})")

    def __getitem__(self, name: str) -> Value:
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __hash__(self) -> int:
        return hash(frozenset(self._values.items()))

    def __reduce__(self) -> tuple[type[Arch], tuple[dict[str, Value]]]:
        return Arch, (self._values,)  # the default would set the attribute

    def __repr__(self) -> str:
        return f"Arch({self._values})"

    def to_json(self) -> str:
        """The arch as one JSON object, choice name to value."""
        return json.dumps(self._values)

    @classmethod
    def from_json(cls, text: str) -> Arch:
        """The arch that `to_json` wrote. Check it against a space with `SearchSpace.arch`."""
        try:
            values = json.loads(text)
        except json.JSONDecodeError as error:
            raise SpaceError(f"not the JSON of an arch: {error}") from error
        numbers = isinstance(values, dict) and all(type(v) in (int, float) for v in values.values())
        if not numbers:
            raise SpaceError(f"an arch is a JSON object from choice names to numbers, got {text[:80]!r}")
        return cls(values)
