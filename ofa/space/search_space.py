"""Search spaces: choices, archs, and sets of archs as integer matrices.

A set of archs is an integer matrix `[n, n_choices]` whose entries are indices into each choice's values,
so sampling, mutation, crossover, costs and predictions are array operations over thousands of archs at
once. `Arch` is the readable view of one row. A choice of a skipped layer is *inactive*: rows hold 0
there and an `Arch` leaves it out, so equal networks have equal rows and equal archs. A choice that *follows*
another is not free: canonical rows hold, and an `Arch` shows, what the other one leads to.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import replace
from fnmatch import fnmatchcase
from functools import cached_property
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from ofa.core.errors import SpaceError
from ofa.space.arch import Arch, Rows, Value
from ofa.space.choice import Choice


class SearchSpace:
    """An ordered list of choices, and the operations on matrices of archs over it.

    Args:
        choices: each after those that it needs or follows.
        places: for choices that follow another, their index for each index of that one, if not evenly spread.

    Raises:
        SpaceError: choices contradict each other, or leave a single arch.
    """

    def __init__(self, choices: Iterable[Choice], places: Mapping[str, Rows] | None = None) -> None:
        self.choices = tuple(choices)
        self.names = tuple(choice.name for choice in self.choices)
        self._column: dict[str, int] = {}
        self._needs: dict[int, tuple[int, NDArray[np.bool_]]] = {}  # by column: the column looked at, then by its index
        self._follows: dict[int, tuple[int, Rows]] = {}
        for column, choice in enumerate(self.choices):
            if choice.name in self._column:
                raise SpaceError(f"choice {choice.name!r} is there twice; choice names are unique")
            if choice.needs is not None:
                needed = self._before(choice, "needs", choice.needs[0])
                enough = [value >= choice.needs[1] for value in self.choices[needed].values]
                self._needs[column] = needed, np.array(enough)
            if choice.follows is not None:
                followed = self._before(choice, "follows", choice.follows)
                if followed in self._follows:
                    raise SpaceError(
                        f"choice {choice.name!r} follows {choice.follows!r}, which is not free; let it follow "
                        f"{self.choices[followed].follows!r} as well"
                    )
                even = _even_places(len(self.choices[followed].values), len(choice.values))
                self._follows[column] = followed, (places or {}).get(choice.name, even)
            self._column[choice.name] = column
        if self.size < 2:
            raise SpaceError("a search space of a single arch leaves nothing to search; give some choice two values")

    def __repr__(self) -> str:
        return f"SearchSpace({len(self.choices)} choices, {self.size:.3g} archs)"

    @cached_property
    def size(self) -> int:
        """How many different archs there are, exactly (choices that are inactive or follow others not counted)."""
        rules = (self._needs, self._follows)
        looks_at = [{rule[column][0] for rule in rules if column in rule} for column in range(len(self.choices))]

        def count(columns: list[int], known: dict[int, int]) -> int:
            """Of some choices, where the indices of those that they look at are known or among them (-1: inactive)."""
            groups: list[list[int]] = []  # that do not look at each other, so that their numbers multiply
            for column in columns:
                linked = [group for group in groups if not looks_at[column].isdisjoint(group)]
                groups = [group for group in groups if group not in linked] + [[*chain(*linked), column]]
            return math.prod(
                sum(count(rest, known | {first: index}) for index in self._indices(first, known))
                for first, *rest in groups
            )

        return count(list(range(len(self.choices))), {})

    @cached_property
    def largest(self) -> Arch:
        """The arch with the last value of every choice."""
        return self.decode(np.array(self._n_values) - 1)

    @cached_property
    def smallest(self) -> Arch:
        """The arch with the first value of every free choice."""
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

    def keep_largest(self, counts: Mapping[str, int]) -> SearchSpace:
        """The archs of this space in which choices take only their largest values, as progressive shrinking trains them
        (once-for-all, arXiv 1908.09791, 3.3).

        A choice that follows another keeps the values that the kept ones of that lead to, whatever its own count.

        Args:
            counts: how many values are kept of the choices that a pattern matches, as in `fnmatch`; the first that
                matches holds, and a choice that none matches keeps its largest value only.

        Raises:
            SpaceError: a pattern matches no choice, a count is below 1, or a single arch is left.
        """
        for pattern, count in counts.items():
            matching = tuple(name for name in self.names if fnmatchcase(name, pattern))
            if not matching:
                raise SpaceError(f"no choice matches {pattern!r}; this space has {_some(self.names)}")
            if count < 1:
                raise SpaceError(f"{pattern!r} cannot keep {count} values; keep 1 or more of {_some(matching)}")
        kept: dict[str, Choice] = {}
        places: dict[str, Rows] = {}
        for column, choice in enumerate(self.choices):
            if choice.follows is None:
                count = next((n for pattern, n in counts.items() if fnmatchcase(choice.name, pattern)), 1)
                values = choice.values[-count:]
            else:
                reached = self._follows[column][1][-len(kept[choice.follows].values) :]
                indices, places[choice.name] = np.unique(reached, return_inverse=True)
                values = tuple(choice.values[index] for index in indices.tolist())
            kept[choice.name] = replace(choice, values=values)
        return SearchSpace(kept.values(), places)

    # One arch at a time

    def arch(self, values: Mapping[str, Value]) -> Arch:
        """Checks a mapping of choice names to values and drops its inactive choices.

        Raises:
            SpaceError: an unknown or missing choice, or a value that is not allowed.
        """
        return self.decode(self.encode(values))

    def encode(self, arch: Mapping[str, Value]) -> Rows:
        """The row `[n_choices]` of an arch; choices that turn out inactive or follow others may be there or not.

        Raises:
            SpaceError: an unknown or missing choice, or a value that is not allowed.
        """
        for name in sorted(set(arch) - set(self.names)):
            self.column(name)  # raises
        row: Rows = np.zeros(len(self.choices), dtype=np.int64)
        for column, choice in enumerate(self.choices):
            if choice.name in arch:
                if arch[choice.name] not in choice.values:
                    raise SpaceError(
                        f"{choice.name} = {arch[choice.name]!r} is not allowed; choose from {choice.values}"
                    )
                row[column] = choice.values.index(arch[choice.name])
        rows, active = self._settled(row[None])
        settled: Rows = rows[0]
        free = active[0] & (np.array(self._n_values) > 1)  # a single value goes without saying
        free[list(self._follows)] = False
        missing = [name for name, on in zip(self.names, free, strict=True) if on and name not in arch]
        if missing:
            raise SpaceError(f"choice {missing[0]!r} is missing ({len(missing)} in all); give it a value")
        for column in np.flatnonzero(active[0] & (settled != row)).tolist():  # these follow others
            choice, right = self.choices[column], self.decode(settled)
            if choice.name in arch:
                raise SpaceError(
                    f"{choice.name} = {arch[choice.name]!r} is not allowed: it follows {choice.follows}, which "
                    f"is {right.get(str(choice.follows), 'inactive')}, so it is {right[choice.name]!r}; leave it out"
                )
        return settled

    def row(self, arch: Mapping[str, Value] | Rows) -> Rows:
        """Return the row `[n_choices]` of an arch, which may be a row already.

        Raises:
            SpaceError: not an arch or a row of this space.
        """
        if isinstance(arch, Mapping):
            return self.encode(arch)
        row: Rows = self.canonical(self._checked(np.asarray(arch)[None]))[0]
        return row

    def decode(self, row: Rows) -> Arch:
        """The arch of one row `[n_choices]`."""
        (row,), (active,) = self._settled(self._checked(np.asarray(row)[None]))
        pairs = zip(self.choices, row, active, strict=True)
        return Arch({choice.name: choice.values[index] for choice, index, on in pairs if on})

    # Many archs at once

    def rows(self, archs: Iterable[Mapping[str, Value]]) -> Rows:
        """The matrix `[n, n_choices]` of several archs."""
        rows = [self.encode(arch) for arch in archs]
        return np.stack(rows) if rows else np.zeros((0, len(self.choices)), dtype=np.int64)

    def active(self, rows: Rows) -> NDArray[np.bool_]:
        """Which choices take part in each arch: bool `[n, n_choices]`."""
        return self._settled(rows)[1]

    def canonical(self, rows: Rows) -> Rows:
        """The rows with inactive choices set to 0 and others to what they follow: equal networks have equal rows."""
        return self._settled(rows)[0]

    def sample(self, n: int, rng: np.random.Generator) -> Rows:
        """`n` rows, each free choice uniform over its values and independent of the others."""
        return self.canonical(rng.integers(0, self._n_values, size=(n, len(self.choices))))

    def mutate(self, rows: Rows, rng: np.random.Generator, probability: float = 0.1) -> Rows:
        """Rows in which each free choice moved, with the given probability, to one of its other values."""
        n_values = np.array(self._n_values)
        step = 1 + rng.integers(0, np.maximum(n_values - 1, 1), size=rows.shape)
        moved = (rows + step) % n_values
        return self.canonical(np.where(rng.random(rows.shape) < probability, moved, rows))

    def crossover(self, mothers: Rows, fathers: Rows, rng: np.random.Generator) -> Rows:
        """Rows that take each free choice from either parent with equal chance (uniform crossover)."""
        return self.canonical(np.where(rng.random(mothers.shape) < 0.5, mothers, fathers))

    def unique(self, rows: Rows) -> Rows:
        """Canonical rows, each once, in order of first appearance."""
        rows = self.canonical(rows)
        _, first = np.unique(rows, axis=0, return_index=True)
        return rows[np.sort(first)]

    def one_hot(self, rows: Rows) -> NDArray[np.float32]:
        """Features `[n, sum of values]`: one-hot per choice, all zero where it is inactive."""
        rows, active = self._settled(rows)
        offsets = np.concatenate([[0], np.cumsum(self._n_values)])
        features = np.zeros((len(rows), int(offsets[-1])), dtype=np.float32)
        sample, column = np.nonzero(active)
        features[sample, offsets[column] + rows[sample, column]] = 1.0
        return features

    def _settled(self, rows: Rows) -> tuple[Rows, NDArray[np.bool_]]:
        """Canonical rows, and which of their choices are active, both `[n, n_choices]`."""
        rows, active = rows.copy(), np.ones(rows.shape, dtype=bool)
        for column in range(len(self.choices)):
            if column in self._follows:
                followed, places = self._follows[column]
                rows[:, column] = places[np.where(active[:, followed], rows[:, followed], -1)]
            if column in self._needs:
                needed, enough = self._needs[column]
                active[:, column] = active[:, needed] & enough[rows[:, needed]]
        return rows * active, active

    def _indices(self, column: int, known: Mapping[int, int]) -> Iterable[int]:
        """The indices that a choice can have where those that it looks at are known; -1: inactive."""
        if column in self._needs:
            needed, enough = self._needs[column]
            if known[needed] < 0 or not enough[known[needed]]:
                return (-1,)
        if column in self._follows:
            followed, places = self._follows[column]
            return (int(places[known[followed]]),)
        return range(self._n_values[column])

    def _before(self, choice: Choice, does: str, name: str) -> int:
        """The column of the choice that a choice needs or follows."""
        if name not in self._column:
            raise SpaceError(f"choice {choice.name!r} {does} {name!r}, which must be listed before it")
        return self._column[name]

    def _checked(self, rows: Rows) -> Rows:
        if rows.ndim != 2 or rows.shape[1] != len(self.choices):
            raise SpaceError(f"rows have shape {rows.shape}; this space wants [n, {len(self.choices)}]")
        if (rows < 0).any() or (rows >= np.array(self._n_values)).any():
            raise SpaceError("rows hold an index outside of a choice's values")
        return rows


def _even_places(n: int, m: int) -> Rows:
    """For each of `n` indices the one of `m` that is as far along, rounded half up; the last if `n` is 1."""
    places: Rows = (2 * np.arange(n) * (m - 1) + n - 1) // (2 * (n - 1)) if n > 1 else np.array([m - 1])
    return places


def _some(names: tuple[str, ...], limit: int = 8) -> str:
    return ", ".join(names[:limit]) + (f", ... ({len(names)} in all)" if len(names) > limit else "")
