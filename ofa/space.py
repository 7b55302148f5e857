"""Search spaces: choices, archs, and sets of archs as integer matrices.

A set of archs is an integer matrix `[n, n_choices]` whose entries are indices into each choice's values,
so sampling, mutation, crossover, costs and predictions are array operations over thousands of archs at
once. `Arch` is the readable view of one row. A choice of a skipped layer is *inactive*: rows hold 0
there and an `Arch` leaves it out, so equal networks have equal rows and equal archs.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ofa.errors import SpaceError

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


@dataclass(frozen=True)
class Choice:
    """One decision and its allowed values, ascending.

    Attributes:
        name: such as `resolution`, `stage2.depth` or `stage2.block1.kernel`.
        values: allowed values, strictly ascending; the last is the largest network's.
        needs: `(name, minimum)`: the choice is active while the (earlier) choice `name` is active
            and its value is at least `minimum`. None: always active.
    """

    name: str
    values: tuple[Value, ...]
    needs: tuple[str, Value] | None = None

    def __post_init__(self) -> None:
        if not self.values:
            raise SpaceError(f"choice {self.name!r} has no values; give at least one")
        if any(type(v) not in (int, float) or not math.isfinite(v) for v in self.values):
            raise SpaceError(f"choice {self.name!r} has values {self.values}; only finite numbers are allowed")
        if any(b <= a for a, b in zip(self.values, self.values[1:], strict=False)):
            raise SpaceError(f"choice {self.name!r} has values {self.values}; sort them ascending, each once")

    def needs_for(self, index: int) -> tuple[str, Value] | None:
        """The `needs` of what belongs to block `index`, counted from 0, if this choice is how many blocks are kept."""
        return (self.name, index + 1) if index + 1 > self.values[0] else None


class SearchSpace:
    """An ordered list of choices, and the operations on matrices of archs over it."""

    def __init__(self, choices: Iterable[Choice]) -> None:
        self.choices = tuple(choices)
        self.names = tuple(choice.name for choice in self.choices)
        self._column: dict[str, int] = {}
        for choice in self.choices:
            if choice.name in self._column:
                raise SpaceError(f"choice {choice.name!r} is there twice; choice names are unique")
            if choice.needs is not None and choice.needs[0] not in self._column:
                raise SpaceError(f"choice {choice.name!r} needs {choice.needs[0]!r}, which must be listed before it")
            self._column[choice.name] = len(self._column)
        if self.size < 2:
            raise SpaceError("a search space of a single arch leaves nothing to search; give some choice two values")

    def __repr__(self) -> str:
        return f"SearchSpace({len(self.choices)} choices, {self.size:.3g} archs)"

    @cached_property
    def size(self) -> int:
        """How many different archs there are, exactly (inactive choices not counted)."""
        dependants: dict[str, list[Choice]] = {name: [] for name in self.names}
        for choice in self.choices:
            if choice.needs is not None:
                dependants[choice.needs[0]].append(choice)

        def count(choice: Choice) -> int:
            active = ([c for c in dependants[choice.name] if c.needs and v >= c.needs[1]] for v in choice.values)
            return sum(math.prod(count(c) for c in children) for children in active)

        return math.prod(count(choice) for choice in self.choices if choice.needs is None)

    @property
    def largest(self) -> Arch:
        """The arch with the last value of every choice."""
        return self.decode(np.array(self._n_values) - 1)

    @property
    def smallest(self) -> Arch:
        """The arch with the first value of every choice."""
        return self.decode(np.zeros(len(self.choices), dtype=np.int64))

    @cached_property
    def _n_values(self) -> tuple[int, ...]:
        return tuple(len(choice.values) for choice in self.choices)

    def column(self, name: str) -> int:
        """The column of a choice in a matrix of rows.

        Raises:
            SpaceError: the space has no such choice.
        """
        if name not in self._column:
            raise SpaceError(f"unknown choice {name!r}; this space has {_some(self.names)}")
        return self._column[name]

    # One arch at a time

    def arch(self, values: Mapping[str, Value]) -> Arch:
        """Checks a mapping of choice names to values and drops its inactive choices.

        Raises:
            SpaceError: an unknown or missing choice, or a value that is not allowed.
        """
        return self.decode(self.encode(values))

    def encode(self, arch: Mapping[str, Value]) -> Rows:
        """The row `[n_choices]` of an arch; choices that turn out inactive may be there or not.

        Raises:
            SpaceError: an unknown or missing choice, or a value that is not allowed.
        """
        unknown = sorted(set(arch) - set(self.names))
        if unknown:
            raise SpaceError(f"unknown choice {unknown[0]!r}; this space has {_some(self.names)}")
        row: Rows = np.zeros(len(self.choices), dtype=np.int64)
        for column, choice in enumerate(self.choices):
            if choice.name in arch:
                if arch[choice.name] not in choice.values:
                    raise SpaceError(
                        f"{choice.name} = {arch[choice.name]!r} is not allowed; choose from {choice.values}"
                    )
                row[column] = choice.values.index(arch[choice.name])
        active = self.active(row[None])[0]
        free = active & (np.array(self._n_values) > 1)  # a single value goes without saying
        missing = [name for name, on in zip(self.names, free, strict=True) if on and name not in arch]
        if missing:
            raise SpaceError(f"choice {missing[0]!r} is missing ({len(missing)} in all); give it a value")
        row[~active] = 0
        return row

    def decode(self, row: Rows) -> Arch:
        """The arch of one row `[n_choices]`."""
        row = self._checked(np.asarray(row)[None])
        active = self.active(row)[0]
        pairs = zip(self.choices, row[0], active, strict=True)
        return Arch({choice.name: choice.values[index] for choice, index, on in pairs if on})

    # Many archs at once

    def rows(self, archs: Iterable[Mapping[str, Value]]) -> Rows:
        """The matrix `[n, n_choices]` of several archs."""
        rows = [self.encode(arch) for arch in archs]
        return np.stack(rows) if rows else np.zeros((0, len(self.choices)), dtype=np.int64)

    def active(self, rows: Rows) -> NDArray[np.bool_]:
        """Which choices take part in each arch: bool `[n, n_choices]`."""
        active = np.ones(rows.shape, dtype=bool)
        for column, choice in enumerate(self.choices):
            if choice.needs is not None:
                parent = self._column[choice.needs[0]]
                enough = np.array([value >= choice.needs[1] for value in self.choices[parent].values])
                active[:, column] = active[:, parent] & enough[rows[:, parent]]
        return active

    def canonical(self, rows: Rows) -> Rows:
        """The rows with inactive choices set to 0, so that equal networks have equal rows."""
        return rows * self.active(rows)

    def sample(self, n: int, rng: np.random.Generator) -> Rows:
        """`n` rows, each choice uniform over its values and independent of the others."""
        return self.canonical(rng.integers(0, self._n_values, size=(n, len(self.choices))))

    def mutate(self, rows: Rows, rng: np.random.Generator, probability: float = 0.1) -> Rows:
        """Rows in which each choice moved, with the given probability, to one of its other values."""
        n_values = np.array(self._n_values)
        step = 1 + rng.integers(0, np.maximum(n_values - 1, 1), size=rows.shape)
        moved = (rows + step) % n_values
        return self.canonical(np.where(rng.random(rows.shape) < probability, moved, rows))

    def crossover(self, mothers: Rows, fathers: Rows, rng: np.random.Generator) -> Rows:
        """Rows that take each choice from either parent with equal chance (uniform crossover)."""
        return self.canonical(np.where(rng.random(mothers.shape) < 0.5, mothers, fathers))

    def unique(self, rows: Rows) -> Rows:
        """Canonical rows, each once, in order of first appearance."""
        rows = self.canonical(rows)
        _, first = np.unique(rows, axis=0, return_index=True)
        return rows[np.sort(first)]

    def one_hot(self, rows: Rows) -> NDArray[np.float32]:
        """Features `[n, sum of values]`: one-hot per choice, all zero where it is inactive."""
        offsets = np.concatenate([[0], np.cumsum(self._n_values)])
        features = np.zeros((len(rows), int(offsets[-1])), dtype=np.float32)
        sample, column = np.nonzero(self.active(rows))
        features[sample, offsets[column] + rows[sample, column]] = 1.0
        return features

    def _checked(self, rows: Rows) -> Rows:
        if rows.ndim != 2 or rows.shape[1] != len(self.choices):
            raise SpaceError(f"rows have shape {rows.shape}; this space wants [n, {len(self.choices)}]")
        if (rows < 0).any() or (rows >= np.array(self._n_values)).any():
            raise SpaceError("rows hold an index outside of a choice's values")
        return rows


def read_archs(path: Path, space: SearchSpace) -> list[Arch]:
    """Reads a JSON list of archs (or of objects with an `arch` key) and checks each against the space.

    Raises:
        SpaceError: not readable, not such a list, or an arch outside the space.
    """
    try:
        items = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise SpaceError(f"cannot read archs from {path}: {error}") from error
    if isinstance(items, list):
        items = [item.get("arch", item) if isinstance(item, dict) else item for item in items]
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise SpaceError(f"{path} must hold a JSON list of archs (objects from choice name to value)")
    return [space.arch(item) for item in items]


def _some(names: tuple[str, ...], limit: int = 8) -> str:
    return ", ".join(names[:limit]) + (f", ... ({len(names)} in all)" if len(names) > limit else "")
