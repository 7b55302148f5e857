"""A search space, and the operations on matrices of archs over it."""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from fnmatch import fnmatchcase
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from ofa.core.errors import SpaceError, listed, nearest
from ofa.space.arch import Arch, Rows, Value
from ofa.space.choice import Choice
from ofa.space.counting import count_assignments


class SearchSpace:
    """An ordered list of choices. Sets of archs are integer matrices `[n, n_choices]` of indices of values.

    In a canonical row, inactive choices are 0 and a choice that follows another has the index that the other one leads
    to, so equal networks have equal rows. Methods accept any well-formed rows (`check_rows`) and return canonical ones.

    Args:
        choices: the choices, each after those that it needs or follows.
        follower_indices: the index of a choice that follows another, for each index of that one; by default as in
            `Choice.follows`.
        single_arch: whether a single arch may be left, for a network that is trained alone.

    Raises:
        SpaceError: the choices contradict each other, or leave a single arch where that is not expected.
    """

    def __init__(
        self,
        choices: Iterable[Choice],
        *,
        follower_indices: Mapping[str, Rows] | None = None,
        single_arch: bool = False,
    ) -> None:
        self.choices = tuple(choices)
        self.names = tuple(choice.name for choice in self.choices)
        self._n_values = np.array([len(choice.values) for choice in self.choices], dtype=np.int64)
        self._columns: dict[str, int] = {}
        # By column: the column that it needs, and whether each index there is enough.
        self._needs: dict[int, tuple[int, NDArray[np.bool_]]] = {}
        # By column: the column that it follows, and its own index for each index there.
        self._follows: dict[int, tuple[int, Rows]] = {}
        for column, choice in enumerate(self.choices):
            if choice.name in self._columns:
                raise SpaceError(f"choice {choice.name!r} is listed twice; choice names are unique")
            if choice.needs is not None:
                needed = self._earlier_column(choice, "needs", choice.needs[0])
                enough = [value >= choice.needs[1] for value in self.choices[needed].values]
                self._needs[column] = needed, np.array(enough)
            if choice.follows is not None:
                followed = self._earlier_column(choice, "follows", choice.follows)
                if followed in self._follows:
                    raise SpaceError(
                        f"choice {choice.name!r} follows {choice.follows!r}, which is not free; let it follow "
                        f"{self.choices[followed].follows!r} as well"
                    )
                even = _evenly_spread(len(self.choices[followed].values), len(choice.values))
                self._follows[column] = followed, (follower_indices or {}).get(choice.name, even)
            self._columns[choice.name] = column
        self._dependent = sorted({*self._needs, *self._follows})
        if self.size < 2 and not single_arch:
            raise SpaceError("a search space of a single arch leaves nothing to search; give some choice two values")

    def __repr__(self) -> str:
        size = f"{self.size:.3g}" if self.size < 1e300 else f"10^{math.log10(self.size):.0f}"
        return f"SearchSpace({len(self.choices)} choices, {size} archs)"

    @cached_property
    def size(self) -> int:
        """The exact number of different archs."""
        rules = (self._needs, self._follows)
        parents = [{rule[column][0] for rule in rules if column in rule} for column in range(len(self.choices))]
        return count_assignments(parents, self._possible_indices)

    @cached_property
    def largest(self) -> Arch:
        """The arch with the last value of every choice."""
        return self.decode(self._n_values - 1)

    @cached_property
    def smallest(self) -> Arch:
        """The arch with the first value of every free choice."""
        return self.decode(np.zeros_like(self._n_values))

    def column(self, name: str) -> int:
        """Return the column of a choice in a matrix of rows.

        Raises:
            SpaceError: the space has no such choice; the message names the nearest ones.
        """
        if name not in self._columns:
            raise SpaceError(f"unknown choice {name!r}; {nearest(name, self.names)}")
        return self._columns[name]

    def keep_largest(self, counts: Mapping[str, int]) -> "SearchSpace":
        """Return the part of this space that progressive shrinking trains (arXiv 1908.09791, 3.3).

        `counts` says how many of the largest values remain of the choices that a pattern matches, as in `fnmatch`. The
        first match applies; a choice without a match keeps its largest value only. A choice that follows another keeps
        the values that the remaining ones of that choice lead to.

        Raises:
            SpaceError: a pattern matches no choice, a count is below 1, or a single arch is left.
        """
        for pattern, count in counts.items():
            matching = [name for name in self.names if fnmatchcase(name, pattern)]
            if not matching:
                raise SpaceError(f"no choice matches {pattern!r}; {nearest(pattern, self.names)}")
            if count < 1:
                raise SpaceError(f"{pattern!r} cannot keep {count} values; keep 1 or more of {listed(matching)}")
        remaining: dict[str, Choice] = {}
        follower_indices: dict[str, Rows] = {}
        for column, choice in enumerate(self.choices):
            if choice.follows is None:
                count = next((n for pattern, n in counts.items() if fnmatchcase(choice.name, pattern)), 1)
                values = choice.values[-count:]
            else:
                reached = self._follows[column][1][-len(remaining[choice.follows].values) :]
                indices, follower_indices[choice.name] = np.unique(reached, return_inverse=True)
                values = tuple(choice.values[index] for index in indices.tolist())
            remaining[choice.name] = replace(choice, values=values)
        return SearchSpace(remaining.values(), follower_indices=follower_indices)

    # One arch

    def arch(self, values: Mapping[str, Value]) -> Arch:
        """Check a mapping from choice names to values and drop its inactive choices.

        Raises:
            SpaceError: a choice is unknown or missing, or a value is not allowed.
        """
        return self.decode(self.row(values))

    def decode(self, row: Rows) -> Arch:
        """Return the arch of one row `[n_choices]`."""
        (row,), (active,) = self._resolve(self.check_rows(np.asarray(row)[None]))
        triples = zip(self.choices, row, active, strict=True)
        return Arch({choice.name: choice.values[index] for choice, index, is_active in triples if is_active})

    def row(self, arch: Mapping[str, Value] | Rows) -> Rows:
        """Return the canonical row `[n_choices]` of an arch, given as a mapping or as a row.

        A mapping may contain or leave out choices that are inactive, that follow others, or that have a single value.

        Raises:
            SpaceError: a choice is unknown or missing, a value is not allowed, or the row is malformed.
        """
        row: Rows
        if not isinstance(arch, Mapping):
            (row,) = self.canonical(np.asarray(arch)[None])
            return row
        requested = np.zeros_like(self._n_values)
        for name, value in arch.items():
            values = self.choices[self.column(name)].values
            if value not in values or isinstance(value, bool):
                raise SpaceError(f"{name} = {value!r} is not allowed; choose from {values}")
            requested[self.column(name)] = values.index(value)
        (row,) = self.canonical(requested[None])
        resolved = self.decode(row)
        free = [choice.name for choice in self.choices if choice.follows is None and len(choice.values) > 1]
        missing = [name for name in free if name in resolved and name not in arch]
        if missing:
            raise SpaceError(f"choice {missing[0]!r} is missing ({len(missing)} in all); give it a value")
        for name, value in arch.items():
            if resolved.get(name, value) != value:  # only choices that follow others differ
                followed = str(self.choices[self.column(name)].follows)
                raise SpaceError(
                    f"{name} = {value!r} is not allowed: it follows {followed}, which is "
                    f"{resolved.get(followed, 'inactive')}, so it is {resolved[name]!r}; leave it out"
                )
        return row

    # Many archs

    def rows(self, archs: Iterable[Mapping[str, Value] | Rows]) -> Rows:
        """Return the canonical matrix `[n, n_choices]` of archs."""
        return np.array([self.row(arch) for arch in archs], dtype=np.int64).reshape(-1, len(self.choices))

    def check_rows(self, rows: Rows) -> Rows:
        """Return rows `[n, n_choices]` as they are if they are well-formed.

        Raises:
            SpaceError: the width or the data type is wrong, or an index is outside the values of its choice.
        """
        rows = np.asarray(rows)
        if rows.ndim != 2 or rows.shape[1] != len(self.choices) or rows.dtype != np.int64:
            raise SpaceError(
                f"rows are {rows.dtype} of shape {rows.shape}, but this space requires int64 of shape "
                f"[n, {len(self.choices)}]; create them with SearchSpace.rows or SearchSpace.sample"
            )
        # As unsigned integers, negative indices are larger than any other: one comparison finds both errors.
        outside = rows.view(np.uint64) >= self._n_values.view(np.uint64)
        if outside.any():
            column = int(outside.any(axis=0).argmax())
            raise SpaceError(
                f"rows have an index outside 0 to {self._n_values[column] - 1} for choice {self.names[column]!r}; "
                "create them with SearchSpace.rows or SearchSpace.sample"
            )
        return rows

    def active(self, rows: Rows) -> NDArray[np.bool_]:
        """Return which choices of each arch are active, bool `[n, n_choices]`."""
        return self._resolve(self.check_rows(rows))[1]

    def free(self, rows: Rows) -> NDArray[np.bool_]:
        """Return which choices are active, have several values and follow no other, bool `[n, n_choices]`."""
        free = self.active(rows) & (self._n_values > 1)
        free[:, list(self._follows)] = False
        return free

    def canonical(self, rows: Rows) -> Rows:
        """Return the canonical rows `[n, n_choices]` of archs."""
        return self._resolve(self.check_rows(rows))[0]

    def sample(self, n: int, rng: np.random.Generator) -> Rows:
        """Draw `n` rows in which each free choice is uniform over its values and independent of the others."""
        return self.canonical(rng.integers(0, self._n_values, size=(n, len(self.choices))))

    def mutate(self, rows: Rows, rng: np.random.Generator, probability: float = 0.1) -> Rows:
        """Move each free choice, with the given probability, to one of its other values."""
        moved = np.array(self.check_rows(rows), order="C")
        values = moved.reshape(-1)
        at = np.flatnonzero(rng.random(len(values), dtype=np.float32) < probability)
        n_values = self._n_values[at % len(self.choices)]
        step = 1 + (rng.random(len(at)) * (n_values - 1)).astype(np.int64)
        values[at] = (values[at] + step) % n_values
        return self._resolve(moved)[0]

    def crossover(self, mothers: Rows, fathers: Rows, rng: np.random.Generator) -> Rows:
        """Take each free choice from either parent with equal probability (uniform crossover)."""
        if self.check_rows(mothers).shape != self.check_rows(fathers).shape:
            raise SpaceError(f"{len(mothers)} mothers cannot cross with {len(fathers)} fathers; pass as many of each")
        return self.canonical(np.where(rng.integers(0, 2, mothers.shape, dtype=bool), mothers, fathers))

    def mutate_one(self, rows: Rows, rng: np.random.Generator) -> Rows:
        """Move one choice of each arch, drawn from those that are free and active, to one of its other values.

        An arch without such a choice is returned as it is.
        """
        movable = self.free(rows)
        column = (rng.random(movable.shape, dtype=np.float32) * movable).argmax(axis=1)
        step = 1 + rng.integers(0, np.maximum(self._n_values[column] - 1, 1))
        moved, arch = rows.copy(), np.arange(len(rows))
        moved[arch, column] = (moved[arch, column] + step * movable.any(axis=1)) % self._n_values[column]
        return self.canonical(moved)

    def neighbors(self, row: Rows) -> Rows:
        """Return the archs `[n, n_choices]` that differ from that of a row `[n_choices]` in one free choice."""
        row = self.row(row)
        moved = np.repeat(row[None], int(self._n_values.sum()), axis=0)
        column = np.repeat(np.arange(len(row)), self._n_values)
        moved[np.arange(len(moved)), column] = np.concatenate([np.arange(n) for n in self._n_values])
        others = self.canonical(moved)
        return self.distinct(others[(others != row).any(axis=1)])

    def enumerate(self, pattern: str = "*", after: Rows | None = None) -> Iterator[Rows]:
        """Yield each different row `[n_choices]` once, in ascending order; those that come after a row if one is given.

        Choices that the pattern does not match, as in `fnmatch`, keep their largest value.

        Raises:
            SpaceError: the pattern matches no choice.
        """
        varied = [fnmatchcase(name, pattern) for name in self.names]
        if not any(varied):
            raise SpaceError(f"no choice matches {pattern!r}; {nearest(pattern, self.names)}")
        indices: dict[int, int] = {}

        def allowed(column: int) -> list[int]:
            possible = list(self._possible_indices(column, indices))
            return possible if varied[column] else possible[-1:]

        def fill(start: int) -> None:
            for column in range(start, len(self.choices)):
                indices[column] = allowed(column)[0]

        if after is None:
            fill(0)
            yield self._row_of(indices)
        else:
            active = self.active(after[None])[0]
            indices |= {i: int(x) if on else -1 for i, (x, on) in enumerate(zip(after, active, strict=True))}
        while True:
            larger = ((c, [i for i in allowed(c) if i > indices[c]]) for c in reversed(range(len(self.choices))))
            column, following = next(((c, found) for c, found in larger if found), (-1, [0]))
            if column < 0:
                return
            indices[column] = following[0]
            fill(column + 1)
            yield self._row_of(indices)

    def _row_of(self, indices: Mapping[int, int]) -> Rows:
        return np.array([max(indices[column], 0) for column in range(len(self.choices))], dtype=np.int64)

    def keys(self, rows: Rows) -> NDArray[np.uint64]:
        """Return numbers `[n, n_words]` that are equal for equal canonical rows only; one word for up to 2^63 rows."""
        return np.stack(self._keys(rows), axis=1).view(np.uint64)

    def _keys(self, rows: Rows) -> list[Rows]:
        return [rows[:, columns] @ factors for columns, factors in self._words]

    def unique(self, rows: Rows) -> Rows:
        """Return the different canonical rows in order of first appearance."""
        return self.distinct(self.canonical(rows))

    def distinct(self, rows: Rows) -> Rows:
        """Return the different ones of canonical rows, which are not checked, in order of first appearance."""
        return rows[self.first_appearances(rows)]

    def first_appearances(self, rows: Rows) -> NDArray[np.int64]:
        """Return the positions, ascending, of the different ones of canonical rows, which are not checked."""
        words = self._keys(rows)
        order = np.lexsort(words)  # stable, so the first of equal rows comes first
        repeated, first = np.ones(len(rows), dtype=bool), np.zeros(len(rows), dtype=bool)
        repeated[:1] = False
        for word in words:
            ordered = word[order]
            repeated[1:] &= ordered[1:] == ordered[:-1]
        first[order[~repeated]] = True
        return np.flatnonzero(first)

    @cached_property
    def _words(self) -> list[tuple[slice, Rows]]:
        """Runs of columns whose rows a number of 63 bits can tell apart, and the factor of each column's index."""
        words, start, factors, total = list[tuple[slice, Rows]](), 0, list[int](), 1
        for column, n in enumerate(self._n_values.tolist()):
            if total * n >= 2**63:
                words.append((slice(start, column), np.array(factors)))
                start, factors, total = column, [], 1
            factors.append(total)
            total *= n
        return [*words, (slice(start, len(self.choices)), np.array(factors))]

    def one_hot(self, rows: Rows) -> NDArray[np.float32]:
        """Return features `[n, total number of values]`: one-hot per active choice, zeros for an inactive one."""
        codes, n_values = self.codes(rows), int(self._n_values.sum())
        features = np.zeros((len(codes), n_values + 1), dtype=np.float32)
        features[np.arange(len(codes))[:, None], codes] = 1.0
        return features[:, :n_values]

    def codes(self, rows: Rows) -> Rows:
        """Return the columns of `one_hot` that are 1 `[n, n_choices]`; their number for an inactive choice."""
        rows, active = self._resolve(self.check_rows(rows))
        offsets = np.cumsum(self._n_values) - self._n_values
        return np.where(active, rows + offsets, self._n_values.sum())

    def _resolve(self, rows: Rows) -> tuple[Rows, NDArray[np.bool_]]:
        """Return the canonical rows and which of their choices are active, both `[n, n_choices]`."""
        columns = np.array(rows.T, order="C")  # one choice after another, which is how they are read
        active = np.ones(columns.shape, dtype=bool)
        for column in self._dependent:
            if column in self._follows:
                followed, own_index = self._follows[column]
                last = len(own_index) - 1
                columns[column] = own_index[np.where(active[followed], columns[followed], last)]
            if column in self._needs:
                needed, enough = self._needs[column]
                active[column] = active[needed] & enough[columns[needed]]
        columns *= active
        return np.ascontiguousarray(columns.T), active.T

    def _possible_indices(self, column: int, fixed: Mapping[int, int]) -> Iterable[int]:
        """Return the indices that a choice can have if those that it reads are fixed; -1 stands for inactive."""
        if column in self._needs:
            needed, enough = self._needs[column]
            if fixed[needed] < 0 or not enough[fixed[needed]]:
                return (-1,)
        if column in self._follows:
            followed, own_index = self._follows[column]
            return (int(own_index[fixed[followed]]),)  # -1 leads to the last, as in `_resolve`
        return range(int(self._n_values[column]))

    def _earlier_column(self, choice: Choice, relation: str, name: str) -> int:
        """Return the column of the choice that `choice` needs or follows."""
        if name not in self._columns:
            raise SpaceError(f"choice {choice.name!r} {relation} {name!r}, which must be listed before it")
        return self._columns[name]


def _evenly_spread(n: int, m: int) -> Rows:
    """Map each of `n` indices to the one of `m` that is as far along, halves rounded up; 1 index maps to the last."""
    return (2 * np.arange(n) * (m - 1) + n - 1) // (2 * (n - 1)) if n > 1 else np.array([m - 1])
