"""Grid search: all archs in order, or all values of some choices."""

from collections.abc import Iterator
from itertools import islice

import numpy as np
from pydantic import Field

from ofa.core.config import Config
from ofa.core.errors import SearchError, SpaceError
from ofa.search.algorithm import Algorithm, State
from ofa.space.arch import Rows


class GridSettings(Config):
    """Settings of the search `grid`."""

    choices: str = Field("*", min_length=1)
    """Pattern, as in `fnmatch`, of the choices that vary; the others keep their largest value."""


class Grid(Algorithm):
    """Each arch once, the last choice fastest, until there are no more."""

    name = "grid"
    Settings = GridSettings
    settings: GridSettings
    _last: Rows | None = None
    _rest: Iterator[Rows] | None = None

    def _begin(self) -> None:
        try:
            next(self.space.enumerate(self.settings.choices))
        except SpaceError as error:
            raise SearchError(f"search algorithm {self.name!r}: choices: {error}") from error

    def _propose(self, n: int) -> Rows:
        if self._rest is None:
            self._rest = self.space.enumerate(self.settings.choices, self._last)
        rows = self.space.rows([])
        while len(rows) < n and (found := list(islice(self._rest, n - len(rows)))):
            self._last = found[-1]
            rows = np.concatenate([rows, self._not_seen(np.array(found))])
        return rows

    def state(self) -> State:
        """Return everything that `restore` needs, by name."""
        return super().state() | {"last": self.space.rows([]) if self._last is None else self._last[None]}

    def restore(self, state: State) -> None:
        """Continue where another search was."""
        super().restore(state)
        self._last = state["last"][0] if len(state["last"]) else None
        self._rest = None
